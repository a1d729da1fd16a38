"""Small questions that a request asks before or after its command: what is missing, and what went wrong."""

from collections.abc import Iterable
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from models.arrays import plain

_HAS_STUDENT: Final = text("SELECT EXISTS (SELECT FROM students WHERE id = CAST(:student AS bigint))")
_MISSING_COURSES: Final = text("""
    SELECT id FROM unnest(CAST(:ids AS bigint[])) AS asked(id)
     WHERE NOT EXISTS (SELECT FROM courses WHERE courses.id = asked.id) ORDER BY id
""")
_CLOCK: Final = text("SELECT clock_timestamp()")
_FAILURE: Final = text("""
    SELECT code, message FROM dead_letters
     WHERE command_id = CAST(:id AS uuid) AND replayed_at IS NULL
       AND received_at >= coalesce(CAST(:since AS timestamptz), '-infinity')
     ORDER BY received_at DESC, id DESC LIMIT 1
""")


class Failure(NamedTuple):
    """Why a command's message became a dead letter."""

    code: str
    message: str


def has_student(connection: Connection, student_id: int) -> bool:
    """Tell whether there is such a student."""
    return bool(connection.scalar(_HAS_STUDENT, {"student": student_id}))


def missing_courses(connection: Connection, course_ids: Iterable[int]) -> list[int]:
    """Return those of these courses that do not exist, ascending."""
    return list(connection.scalars(_MISSING_COURSES, {"ids": plain(course_ids)}))


def clock(connection: Connection) -> datetime:
    """Return the database's time, by which dead letters are dated."""
    now: datetime = connection.execute(_CLOCK).scalar_one()
    return now


def failure(connection: Connection, command_id: UUID, since: datetime | None = None) -> Failure | None:
    """Return why a command has no outcome and will have none by itself: the newest dead letter under its id.

    With `since`, of those that came from then on (by `clock`).
    """
    row = connection.execute(_FAILURE, {"id": command_id, "since": since}).one_or_none()
    return None if row is None else Failure._make(row)
