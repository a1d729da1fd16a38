"""Small questions that a request asks before or after its command: what is missing, and what went wrong."""

from collections.abc import Iterable
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from models.arrays import plain

_HAS_STUDENT: Final = text("SELECT EXISTS (SELECT FROM students WHERE id = CAST(:student AS bigint))")
_MISSING_COURSES: Final = text("""
    SELECT id FROM unnest(CAST(:ids AS bigint[])) AS asked(id)
     WHERE NOT EXISTS (SELECT FROM courses WHERE courses.id = asked.id) ORDER BY id
""")
_FAILURE: Final = text("""
    SELECT code, message FROM dead_letters
     WHERE command_id = CAST(:id AS uuid) AND replayed_at IS NULL ORDER BY id DESC LIMIT 1
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


def failure(connection: Connection, command_id: UUID) -> Failure | None:
    """Return why a command has no outcome and will have none by itself: the newest dead letter under its id."""
    row = connection.execute(_FAILURE, {"id": command_id}).one_or_none()
    return None if row is None else Failure._make(row)
