"""The read side: lookups, search and history."""

from models.queries.history import MAX_HISTORY, Effect, HistoryEntry, history
from models.queries.lookups import (
    CourseRow,
    StudentRow,
    StudentWithCourses,
    await_courses_of_each,
    command,
    course,
    courses,
    courses_by_sis_id,
    courses_of,
    courses_of_each,
    is_enrolled,
    student,
    students,
    students_by_sis_id,
    students_in,
    students_with_courses,
)
from models.queries.paging import MAX_LIMIT, Page

__all__ = [
    "MAX_HISTORY",
    "MAX_LIMIT",
    "CourseRow",
    "Effect",
    "HistoryEntry",
    "Page",
    "StudentRow",
    "StudentWithCourses",
    "await_courses_of_each",
    "command",
    "course",
    "courses",
    "courses_by_sis_id",
    "courses_of",
    "courses_of_each",
    "history",
    "is_enrolled",
    "student",
    "students",
    "students_by_sis_id",
    "students_in",
    "students_with_courses",
]
