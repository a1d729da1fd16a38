"""Commands for properties: few students and courses and few moments, so that they meet."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import strategies as st

from enrollment.commands import Command, Enroll, Replace, Unenroll
from enrollment.state import State, StudentState

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STUDENTS = (1, 2, 3)
COURSES = (10, 11, 12, 13)
UNKNOWN_STUDENT, UNKNOWN_COURSE = 9, 99

_moments = st.integers(0, 5).map(lambda hours: NOW - timedelta(hours=hours))
_students = st.sampled_from((*STUDENTS, UNKNOWN_STUDENT))
_courses = st.lists(st.sampled_from((*COURSES * 5, UNKNOWN_COURSE)), min_size=1, max_size=5)


def _command(kind: int, number: int, student: int, courses: list[int], issued_at: datetime) -> Command:
    model = (Enroll, Unenroll, Replace)[kind]
    return model(
        command_id=UUID(int=number), student_id=student, course_ids=tuple(dict.fromkeys(courses)), issued_at=issued_at
    )


def commands(max_size: int = 12) -> st.SearchStrategy[list[Command]]:
    """Lists of stamped commands with ids of their own, some of unknown students or courses."""
    parts = st.tuples(st.integers(0, 2), st.integers(1, 10_000), _students, _courses, _moments)
    return st.lists(parts.map(lambda p: _command(*p)), max_size=max_size, unique_by=lambda c: c.command_id)


def empty_state() -> State:
    return State(students={student: StudentState() for student in STUDENTS}, courses=set(COURSES))
