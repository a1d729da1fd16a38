"""Commands of before a time, page by page, in the order of the change feed: for an archive."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Engine, text

from enrollment.fold import Record
from models.records import RECORD_COLUMNS, record_of

_PAGE: Final = text(f"""
    SELECT position, processed_at < :before AND outcome <> 'waiting' AS wanted,
           processed_at < CAST(:before AS timestamptz) + interval '1 hour' AS near, {RECORD_COLUMNS} FROM commands
     WHERE (position, command_id) > (:position, CAST(:command_id AS uuid))
     ORDER BY position, command_id LIMIT :rows
""")
# Of all ids, a number that changes when one is missing or another.
_CHECK: Final = text("""
    SELECT count(*), coalesce(bit_xor(('x' || right(replace(command_id::text, '-', ''), 16))::bit(64)::bigint), 0)
      FROM commands WHERE processed_at < :before AND outcome <> 'waiting'
""")
ROWS: Final = 1000


def commands_before(engine: Engine, before: datetime) -> Iterator[Record]:
    """Yield the commands that were decided before a time. No snapshot is held: what is decided does not change.

    Transactions begin in the order of the feed, and decide up to an hour later.
    """
    position, command_id = -1, UUID(int=0)
    while True:
        with engine.connect() as connection:
            place = {"position": position, "command_id": command_id, "before": before, "rows": ROWS}
            rows = connection.execute(_PAGE, place).all()
        yield from (record_of(row) for row in rows if row.wanted)
        if len(rows) < ROWS or (rows[-1].position and not rows[-1].near):
            return
        position, command_id = rows[-1].position, rows[-1].command_id


def check(engine: Engine, before: datetime) -> tuple[int, int]:
    """Return how many commands there are from before a time, and a number made of their ids (`added`)."""
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL statement_timeout = 0"))  # it reads all of the table, and blocks nobody
        count, digest = connection.execute(_CHECK, {"before": before}).one()
    return count, digest


def added(digest: int, command_id: UUID) -> int:
    """Return the number with one more id in it."""
    low = command_id.int & (1 << 64) - 1
    return digest ^ (low - (1 << 64) if low >> 63 else low)
