"""Why a pair is as it is: the commands that named or decided it."""

from dataclasses import dataclass
from typing import Any, Final, Literal

from sqlalchemy import Connection, Row, text

from enrollment.fold import Record
from models.queries.lookups import is_enrolled
from models.queries.paging import bounds, require_ids
from models.records import RECORD_COLUMNS, record_of

MAX_HISTORY: Final = 1000  # commands in a history, the newest


Effect = Literal["enrolled", "unenrolled", "unchanged", "superseded"]
_EFFECTS: Final[tuple[Effect, ...]] = ("enrolled", "unenrolled", "unchanged", "superseded")


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """What one command meant for one pair.

    `effect` is None where it had none: the command was rejected, or is a replace that left the course out and had
    nothing to take away. `owns`: the pair belongs to this command now.
    """

    record: Record
    effect: Effect | None
    owns: bool


# The owner is the highest stamp among the pair's own and that of the student's latest replace.
_HISTORY: Final = text(f"""
    WITH owner AS (
        SELECT command_id FROM (
            SELECT issued_at, command_id FROM student_courses
             WHERE student_id = CAST(:student AS bigint) AND course_id = CAST(:course AS bigint)
            UNION ALL
            SELECT issued_at, command_id FROM tombstones
             WHERE student_id = CAST(:student AS bigint) AND course_id = CAST(:course AS bigint)
            UNION ALL
            SELECT issued_at, command_id FROM replace_marks WHERE student_id = CAST(:student AS bigint)) AS stamps
         ORDER BY issued_at DESC NULLS LAST, command_id DESC LIMIT 1)
    SELECT {RECORD_COLUMNS}, command_id IS NOT DISTINCT FROM (SELECT command_id FROM owner) AS owns
      FROM commands
     WHERE student_id = CAST(:student AS bigint)
       AND (CAST(:course AS bigint) = ANY(course_ids) OR command = 'replace' AND outcome = 'applied')
     ORDER BY coalesce(issued_at, processed_at) DESC, command_id DESC LIMIT CAST(:limit AS bigint)
""")


def history(connection: Connection, student_id: int, course_id: int, *, limit: int = MAX_HISTORY) -> list[HistoryEntry]:
    """Return the commands that named or decided a pair, in order of stamp; the newest where there are more.

    An invalid command without a time stands where it was processed. Raises UnknownStudent and UnknownCourse, for which
    it asks a second time where no command had an effect.
    """
    require_ids(student_id, course_id)
    _, limit = bounds(None, limit)
    rows = connection.execute(_HISTORY, {"student": student_id, "course": course_id, "limit": limit}).all()
    entries = [_entry(row, course_id) for row in reversed(rows)]
    if not any(entry.effect for entry in entries):
        is_enrolled(connection, student_id, course_id)
    return entries


def _entry(row: Row[Any], course_id: int) -> HistoryEntry:
    record = record_of(row)
    found = (effect for effect in _EFFECTS if course_id in getattr(record.effects, effect))
    return HistoryEntry(record, next(found, None), row.owns)
