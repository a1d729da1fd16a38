"""The read side: who is enrolled in what, and what came of a command.

Each function takes a connection, sends a constant number of statements (one, unless said otherwise) and returns plain
tuples. Long answers come page by page, in order of id: `after` is the id that the page before ended with.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from enrollment.errors import UnknownCommand, UnknownCourse, UnknownStudent
from enrollment.fold import Record
from models.arrays import plain, quoted, storable
from models.direct import answer
from models.pipeline import Await
from models.queries.paging import Page, bounds, fetch_page, fetch_rows, is_id, require_ids
from models.records import RECORD_COLUMNS, record_of
from models.session import Session


class StudentRow(NamedTuple):
    """A student."""

    id: int
    sis_id: str | None
    name: str


class CourseRow(NamedTuple):
    """A course."""

    id: int
    sis_id: str | None
    code: str
    title: str


class StudentWithCourses(NamedTuple):
    """A student, and the courses they are enrolled in, by id."""

    student: StudentRow
    courses: tuple[CourseRow, ...]


# `_make` without its count of the columns: the statements here have as many.
_new: Final = tuple.__new__
_student_row: Final = partial(_new, StudentRow)
_course_row: Final = partial(_new, CourseRow)

# Tables that are older than this project may have names that are null.
_STUDENT: Final = "s.id, s.sis_id, coalesce(s.name, '')"
_COURSE: Final = "c.id, c.sis_id, coalesce(c.code, ''), coalesce(c.title, '')"

_ONE_STUDENT: Final = text(f"SELECT {_STUDENT} FROM students AS s WHERE s.id = CAST(:id AS bigint)")
_ONE_COURSE: Final = text(f"SELECT {_COURSE} FROM courses AS c WHERE c.id = CAST(:id AS bigint)")
_STUDENTS: Final = text(f"""
    SELECT {_STUDENT} FROM students AS s
     WHERE s.id > CAST(:after AS bigint) ORDER BY s.id LIMIT CAST(:limit AS bigint)
""")
_COURSES: Final = text(f"""
    SELECT {_COURSE} FROM courses AS c
     WHERE c.id > CAST(:after AS bigint) ORDER BY c.id LIMIT CAST(:limit AS bigint)
""")
_STUDENTS_BY_SIS_ID: Final = text(
    f"SELECT {_STUDENT} FROM students AS s WHERE s.sis_id = ANY(CAST(:sis_ids AS text[]))"
)
_COURSES_BY_SIS_ID: Final = text(f"SELECT {_COURSE} FROM courses AS c WHERE c.sis_id = ANY(CAST(:sis_ids AS text[]))")

# From the student outwards, so that one without courses is one row of nulls, and an unknown one is none.
_COURSES_OF: Final = text(f"""
    SELECT {_COURSE}
      FROM students AS s
      LEFT JOIN student_courses AS e ON e.student_id = s.id
      LEFT JOIN courses AS c ON c.id = e.course_id
     WHERE s.id = CAST(:id AS bigint) ORDER BY c.id
""")
_COURSES_OF_EACH: Final = text(f"""
    SELECT s.id, {_COURSE}
      FROM students AS s
      LEFT JOIN student_courses AS e ON e.student_id = s.id
      LEFT JOIN courses AS c ON c.id = e.course_id
     WHERE s.id = ANY(CAST(:ids AS bigint[])) ORDER BY s.id, c.id
""")
_STUDENTS_IN: Final = text(f"""
    SELECT {_STUDENT} FROM student_courses AS e JOIN students AS s ON s.id = e.student_id
     WHERE e.course_id = CAST(:id AS bigint) AND e.student_id > CAST(:after AS bigint)
     ORDER BY e.student_id LIMIT CAST(:limit AS bigint)
""")
# Students with the ids of their courses, then each of these courses once: what many students share travels once.
_STUDENTS_WITH_COURSES: Final = text(f"""
    WITH page (id, sis_id, name, course_ids) AS MATERIALIZED (
        SELECT {_STUDENT}, ARRAY(SELECT e.course_id FROM student_courses AS e
                                  WHERE e.student_id = s.id ORDER BY e.course_id)
          FROM students AS s WHERE s.id > CAST(:after AS bigint) ORDER BY s.id LIMIT CAST(:limit AS bigint))
    SELECT id, sis_id, name, NULL AS title, course_ids FROM page
    UNION ALL
    SELECT {_COURSE}, NULL FROM courses AS c WHERE c.id = ANY(ARRAY(SELECT unnest(course_ids) FROM page))
""")
_PAIR: Final = text("""
    SELECT EXISTS (SELECT FROM students WHERE id = CAST(:student AS bigint)),
           EXISTS (SELECT FROM courses WHERE id = CAST(:course AS bigint)),
           EXISTS (SELECT FROM student_courses
                    WHERE student_id = CAST(:student AS bigint) AND course_id = CAST(:course AS bigint))
""")
_COMMAND: Final = text(f"SELECT {RECORD_COLUMNS} FROM commands WHERE command_id = CAST(:id AS uuid)")


def student(connection: Connection, student_id: int) -> StudentRow:
    """Return a student. Raises UnknownStudent."""
    row = connection.execute(_ONE_STUDENT, {"id": student_id}).one_or_none() if is_id(student_id) else None
    if row is None:
        raise UnknownStudent(student_id)
    return StudentRow._make(row)


def course(connection: Connection, course_id: int) -> CourseRow:
    """Return a course. Raises UnknownCourse."""
    row = connection.execute(_ONE_COURSE, {"id": course_id}).one_or_none() if is_id(course_id) else None
    if row is None:
        raise UnknownCourse(course_id)
    return CourseRow._make(row)


def students(connection: Connection, *, after: int | None = None, limit: int = 100) -> Page[StudentRow]:
    """Return all students, page by page."""
    return fetch_page(connection, _STUDENTS, _student_row, after, limit)


def courses(connection: Connection, *, after: int | None = None, limit: int = 100) -> Page[CourseRow]:
    """Return all courses, page by page."""
    return fetch_page(connection, _COURSES, _course_row, after, limit)


def students_by_sis_id(connection: Connection, sis_ids: Iterable[str]) -> dict[str, StudentRow]:
    """Return the students whom the student information system knows by these names; unknown ones are left out."""
    rows = connection.execute(_STUDENTS_BY_SIS_ID, {"sis_ids": _names(sis_ids)})
    return {row[1]: StudentRow._make(row) for row in rows}


def courses_by_sis_id(connection: Connection, sis_ids: Iterable[str]) -> dict[str, CourseRow]:
    """Return the courses that the student information system knows by these names; unknown ones are left out."""
    rows = connection.execute(_COURSES_BY_SIS_ID, {"sis_ids": _names(sis_ids)})
    return {row[1]: CourseRow._make(row) for row in rows}


def courses_of(connection: Connection, student_id: int) -> list[CourseRow]:
    """Return the courses a student is enrolled in. Raises UnknownStudent."""
    rows: list[Any] = fetch_rows(connection, _COURSES_OF, _course_row, id=student_id) if is_id(student_id) else []
    if not rows:
        raise UnknownStudent(student_id)
    return [] if rows[0].id is None else rows


def courses_of_each(connection: Connection, student_ids: Sequence[int]) -> list[list[CourseRow] | None]:
    """Return the courses of each of these students, in the order of the ids; None for one who does not exist."""
    return _by_student(student_ids, fetch_rows(connection, _COURSES_OF_EACH, tuple, ids=_plain_ids(student_ids)))


async def await_courses_of_each(
    session: Session, ready: Await, student_ids: Sequence[int]
) -> list[list[CourseRow] | None]:
    """Return what `courses_of_each` does, awaited in the event loop. Raises psycopg.Error."""
    return _by_student(student_ids, await answer(session, ready, _COURSES_OF_EACH, {"ids": _plain_ids(student_ids)}))


def _plain_ids(student_ids: Sequence[int]) -> str:
    return plain(id_ for id_ in student_ids if is_id(id_))


def _by_student(student_ids: Sequence[int], rows: Iterable[tuple[Any, ...]]) -> list[list[CourseRow] | None]:
    found: dict[int, list[CourseRow]] = {}
    for row in rows:
        courses = found.setdefault(row[0], [])
        if row[1] is not None:
            courses.append(_course_row(row[1:]))
    return list(map(found.get, student_ids))


def students_in(
    connection: Connection, course_id: int, *, after: int | None = None, limit: int = 100
) -> Page[StudentRow]:
    """Return the students enrolled in a course, page by page. Raises UnknownCourse; asks again where there is none."""
    if not is_id(course_id):
        raise UnknownCourse(course_id)
    page = fetch_page(connection, _STUDENTS_IN, _student_row, after, limit, id=course_id)
    if not page.items:
        course(connection, course_id)
    return page


def students_with_courses(
    connection: Connection, *, after: int | None = None, limit: int = 100
) -> Page[StudentWithCourses]:
    """Return all students with their courses, page by page; those without courses as well."""
    start, limit = bounds(after, limit)
    known: dict[int, CourseRow] = {}
    students: list[tuple[Any, ...]] = []
    for row in fetch_rows(connection, _STUDENTS_WITH_COURSES, tuple, after=start, limit=limit + 1):
        id_, sis_id, code, title, course_ids = row
        if course_ids is None:
            known[id_] = _new(CourseRow, (id_, sis_id, code, title))
        else:
            students.append(row)
    students.sort()  # by id
    course_of = known.__getitem__
    items = [
        _new(StudentWithCourses, (_new(StudentRow, row[:3]), tuple(map(course_of, row[4])))) for row in students[:limit]
    ]
    return Page(items, students[limit - 1][0] if len(students) > limit else None)


def is_enrolled(connection: Connection, student_id: int, course_id: int) -> bool:
    """Tell whether a student is enrolled in a course. Raises UnknownStudent, UnknownCourse."""
    require_ids(student_id, course_id)
    has_student, has_course, has_pair = connection.execute(_PAIR, {"student": student_id, "course": course_id}).one()
    if not has_student:
        raise UnknownStudent(student_id)
    if not has_course:
        raise UnknownCourse(course_id)
    return bool(has_pair)


def command(connection: Connection, command_id: UUID) -> Record:
    """Return what was asked and what came of it. Raises UnknownCommand while it has not been processed."""
    row = connection.execute(_COMMAND, {"id": command_id}).one_or_none()
    if row is None:
        raise UnknownCommand(command_id)
    return record_of(row)


def _names(sis_ids: Iterable[str]) -> str:
    return quoted(name for name in sis_ids if storable(name))
