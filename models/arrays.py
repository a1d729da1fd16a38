"""Python lists as PostgreSQL arrays: one parameter for a whole column, whatever the number of rows.

psycopg dumps a list element by element; joined at once, it is several times cheaper. What a batch writes for each
command goes in binary, which the server need not parse: half the time of both sides.
"""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from struct import Struct
from typing import Final, cast
from uuid import UUID

# The binary format of an array is that of array_send(): number of dimensions, whether there are NULLs, type of the
# items (its number in pg_type); length and first index; then each item after its size.
_NO_ITEMS: Final = Struct(">iii").pack
_ITEMS: Final = Struct(">iiiii").pack
_SIZE: Final = Struct(">i").pack
_BIGINT: Final = Struct(">q").pack
_NULL: Final = _SIZE(-1)
_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Binary(bytes):
    """A parameter in binary, for `models.direct`."""

    __slots__ = ()


def bigints(values: Iterable[int | None]) -> Binary:
    """Return a `bigint[]`."""
    return _array(20, 8, [None if value is None else _BIGINT(value) for value in values])


def uuids(values: Iterable[UUID]) -> Binary:
    """Return a `uuid[]`."""
    return _array(2950, 16, [value.bytes for value in values])


def times(values: Iterable[datetime | None]) -> Binary:
    """Return a `timestamptz[]`."""
    return _array(1184, 8, [None if value is None else _time(value) for value in values])


def blobs(values: Sequence[bytes]) -> Binary:
    """Return a `bytea[]`."""
    return _of(17, len(values), b"".join([_SIZE(len(value)) + value for value in values]))


def _array(item_type: int, size: int, items: Sequence[bytes | None]) -> Binary:
    before = _SIZE(size)
    if None not in items:
        return _of(item_type, len(items), before + before.join(cast("Sequence[bytes]", items)))
    body = b"".join([_NULL if item is None else before + item for item in items])
    return _of(item_type, len(items), body, nulls=True)


def _of(item_type: int, count: int, body: bytes, *, nulls: bool = False) -> Binary:
    return Binary(_ITEMS(1, nulls, item_type, count, 1) + body if count else _NO_ITEMS(0, 0, item_type))


@lru_cache(maxsize=4096)  # the stamp of one command is written several times over
def _time(value: datetime) -> bytes:
    return _BIGINT((value - _EPOCH) // _MICROSECOND)


def plain(values: Iterable[object]) -> str:
    """Return the array literal of values whose text needs no quotes: integers, UUIDs, times; none of them None."""
    return "{" + ",".join([str(value) for value in values]) + "}"


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
