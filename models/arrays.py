"""Python lists as PostgreSQL array literals: one parameter for a whole column, whatever the number of rows.

psycopg dumps a list element by element; one joined string is several times cheaper and says the same.
"""

from collections.abc import Iterable


def plain(values: Iterable[object]) -> str:
    """Return the array literal of values whose text needs no quotes: integers, UUIDs, and times from `isoformat`."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def quoted(values: Iterable[str | None]) -> str:
    """Return the array literal of any texts."""
    return "{" + ",".join(["NULL" if value is None else _quote(value) for value in values]) + "}"


def _quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def storable(value: str) -> bool:
    """Tell whether PostgreSQL can hold this text: it has no U+0000, and no lone surrogate."""
    try:
        return b"\x00" not in value.encode()
    except UnicodeEncodeError:
        return False
