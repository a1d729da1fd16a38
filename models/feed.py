"""The change feed: the events of all commands that are kept, in the order of the transactions that wrote them.

Transactions commit out of order. So a page ends below the oldest one that is under way (`pg_snapshot_xmin`): nothing
can come to stand before a cursor that was handed out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Self
from uuid import UUID

from sqlalchemy import Connection, text

from enrollment.commands import format_time
from enrollment.errors import EnrollmentError
from enrollment.events import event_json
from models.epoch import BEGAN, CURRENT
from models.records import RECORD_COLUMNS, record_of

_CURSOR: Final = re.compile(r"([0-9a-f]{1,16})\.([0-9a-f]{1,16})\.([0-9a-f]{32})", re.ASCII)
_LAST_ID: Final = UUID(int=(1 << 128) - 1)
_LONGEST: Final = timedelta(minutes=5)  # from the number of a worker's transaction to the time that it writes


class ChangesGone(EnrollmentError):
    """What comes after a cursor is not known (any more)."""


class WrongCursor(EnrollmentError):
    """A text is no cursor."""

    def __init__(self) -> None:
        super().__init__("This is no cursor; use one that a page or a snapshot came with, or none to begin.")


class Cursor(NamedTuple):
    """A place in the feed of one history of the database: after this command. Opaque to whoever keeps it."""

    epoch: int
    position: int
    command_id: UUID

    def __str__(self) -> str:
        return f"{self.epoch:x}.{self.position:x}.{self.command_id.hex}"

    @classmethod
    def of(cls, said: str) -> Self:
        """Read a cursor. Raises WrongCursor."""
        found = _CURSOR.fullmatch(said)
        if found is None:
            raise WrongCursor
        return cls(int(found[1], 16), int(found[2], 16), UUID(found[3]))


@dataclass(frozen=True, slots=True)
class FeedPage:
    """Events as they stand on the stream, and the cursor after them. `more`: there are some already."""

    events: tuple[str, ...]
    cursor: Cursor
    more: bool


class _Horizon(NamedTuple):
    """Below `complete` no transaction is under way; `next` is yet to begin. Up to `gone`, some were removed.

    `began`: when something was lost, as far as is known.
    """

    epoch: int
    complete: int
    next: int
    gone: int
    began: datetime | None


_HORIZON: Final = text(f"""
    SELECT {CURRENT}, CAST(CAST(pg_snapshot_xmin(now) AS text) AS bigint),
           CAST(CAST(pg_snapshot_xmax(now) AS text) AS bigint), gone_to, {BEGAN}
      FROM epoch, pg_control_system(), pg_current_snapshot() AS now, retention
""")
_PAGE: Final = text(f"""
    SELECT position, {RECORD_COLUMNS} FROM commands
     WHERE (position, command_id) > (:position, CAST(:command_id AS uuid)) AND position < :below
     ORDER BY position, command_id LIMIT :rows
""")
_GONE: Final = text("SELECT gone_to FROM retention")
_FIRST: Final = text("""
    SELECT processed_at FROM commands WHERE position >= :position ORDER BY position, command_id LIMIT 1
""")
_OPEN: Final = text("""
    SELECT extract(epoch FROM clock_timestamp() - processed_at)::float FROM commands
     WHERE position >= CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)
     ORDER BY position, command_id LIMIT 1
""")
_PAIRS: Final = text("""
    SELECT student_id, course_id, issued_at, command_id FROM student_courses
     WHERE (student_id, course_id) > (:student_id, :course_id) ORDER BY student_id, course_id LIMIT :rows
""")
_ROWS: Final = 2000
_RESTORED: Final = "This place is of another database, or of one that was restored; begin with a new snapshot."


def page(connection: Connection, after: str | None, *, rows: int, ahead: bool = False) -> FeedPage:
    """Return the events after a cursor (None: all that are kept), at most `rows`. Each comes on one page.

    `ahead`: with those that are committed and yet have no certain place; the cursor does not move past them, so that
    they come again. Raises WrongCursor, and ChangesGone where some may be missing.
    """
    horizon = _Horizon._make(connection.execute(_HORIZON).one())
    start = Cursor(horizon.epoch, -1, UUID(int=0)) if after is None else _checked(Cursor.of(after), horizon)
    below = horizon.next + (1 << 62) if ahead else horizon.complete
    place = {"position": start.position, "command_id": start.command_id, "below": below, "rows": rows}
    found = connection.execute(_PAGE, place).all()
    if after is not None:  # after the page: retention may have been at it meanwhile
        _checked(start, horizon._replace(gone=connection.execute(_GONE).scalar_one()))
    certain = [row for row in found if row.position < horizon.complete]
    more = len(found) == rows
    end = Cursor(horizon.epoch, max(start.position, horizon.complete - 1), _LAST_ID)
    if more:
        end = Cursor(horizon.epoch, certain[-1].position, certain[-1].command_id) if certain else start
    return FeedPage(tuple(event_json(record_of(row)) for row in found), end, more)


def since(connection: Connection, time: datetime) -> Cursor:
    """Return a cursor before everything that was processed from that time on, and not long before it.

    Raises ChangesGone for a time before a loss: the order of the feed is not that of the times across it.
    """
    horizon = _Horizon._make(connection.execute(_HORIZON).one())
    if horizon.began and time < horizon.began:
        raise ChangesGone(_RESTORED)
    low, high = 0, horizon.complete  # all at `high` and above is from that time on, or there is none
    while low < high:
        middle = (low + high) // 2
        first = connection.execute(_FIRST, {"position": middle}).scalar_one_or_none()
        if first is None or first + _LONGEST >= time:
            high = middle
        else:
            low = middle + 1
    found = Cursor(horizon.epoch, low - 1, _LAST_ID if low else UUID(int=0))
    return found if low > 1 else Cursor(horizon.epoch, 0, UUID(int=0))


def behind(connection: Connection) -> float:
    """Return for how many seconds the feed has stood still, because an older transaction that writes is under way."""
    return connection.execute(_OPEN).scalar_one_or_none() or 0.0


def snapshot(connection: Connection) -> Iterator[str]:
    """Yield the lines of a snapshot: the cursor from which a copy goes on, each pair, and at the end their number.

    JSON, one object a line. The connection's transaction has to be REPEATABLE READ.
    """
    horizon = _Horizon._make(connection.execute(_HORIZON).one())
    yield f'{{"cursor":"{Cursor(horizon.epoch, horizon.complete - 1, _LAST_ID)}"}}\n'
    student_id = course_id = pairs = 0
    while rows := connection.execute(_PAIRS, {"student_id": student_id, "course_id": course_id, "rows": _ROWS}).all():
        yield "".join(
            f'{{"student_id":{student},"course_id":{course},'
            f'"issued_at":{_quoted(None if at is None else format_time(at))},"command_id":{_quoted(by)}}}\n'
            for student, course, at, by in rows
        )
        pairs += len(rows)
        student_id, course_id = rows[-1].student_id, rows[-1].course_id
    yield f'{{"pairs":{pairs}}}\n'


def _quoted(value: object) -> str:
    return "null" if value is None else f'"{value}"'


def _checked(cursor: Cursor, horizon: _Horizon) -> Cursor:
    if cursor.epoch != horizon.epoch or cursor.position >= horizon.next:
        raise ChangesGone(_RESTORED)
    if 0 < cursor.position <= horizon.gone or (horizon.gone and not cursor.position):
        raise ChangesGone("Commands after this cursor are no longer kept; begin the copy with a new snapshot.")
    return cursor
