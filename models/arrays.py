"""Python lists as PostgreSQL array literals: one parameter for a whole column, whatever the number of rows.

psycopg dumps a list element by element; one joined string is several times cheaper and says the same.
"""

from collections.abc import Collection, Iterable


def plain(values: Iterable[object]) -> str:
    """Return the array literal of values whose text needs no quotes: integers, UUIDs, times; none of them None."""
    return "{" + ",".join(map(str, values)) + "}"


def nullable(values: Iterable[object]) -> str:
    """Return what `plain` does, with NULL for None."""
    return "{" + ",".join(["NULL" if value is None else str(value) for value in values]) + "}"


def nested(rows: Iterable[Collection[object] | None]) -> str:
    """Return the array literal of texts that are literals as `plain` makes them, with NULL for None."""
    return "{" + ",".join(["NULL" if row is None else f'"{plain(row)}"' if row else '"{}"' for row in rows]) + "}"


def quoted(values: Iterable[str | None]) -> str:
    """Return the array literal of any texts, with NULL for None."""
    return "{" + ",".join(["NULL" if value is None else _quote(value) for value in values]) + "}"


def _quote(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def storable(value: str) -> bool:
    """Tell whether PostgreSQL can hold this text: it has no U+0000, and no lone surrogate."""
    try:
        return b"\x00" not in value.encode()
    except UnicodeEncodeError:
        return False
