"""The read side: who is enrolled in what, what came of a command, and why a pair is as it is.

Each function takes a connection, sends a constant number of statements (one, unless said otherwise) and returns plain
tuples. Long answers come page by page, in order of id: `after` is the id that the page before ended with.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import Connection, Row, TextClause, text

from enrollment.commands import MAX_ID
from enrollment.errors import UnknownCommand, UnknownCourse, UnknownStudent
from enrollment.fold import Record
from models.arrays import quoted, storable
from models.records import RECORD_COLUMNS, record_of

MAX_LIMIT: Final = 10_000  # rows of one page; a larger `limit` gives pages of this size
MAX_HISTORY: Final = 1000  # commands in a history, the newest
_MIN_ID: Final = -(2**63)  # PostgreSQL's bigint; below every id, those of a foreign system included

T = TypeVar("T")
Effect = Literal["enrolled", "unenrolled", "unchanged", "superseded"]
_EFFECTS: Final[tuple[Effect, ...]] = ("enrolled", "unenrolled", "unchanged", "superseded")


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


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a long answer; `after` is what to ask for the next part with, None where this is the last."""

    items: list[T]
    after: int | None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """What one command meant for one pair.

    `effect` is None where it had none: the command was rejected, or is a replace that left the course out and had
    nothing to take away. `owns`: the pair belongs to this command now.
    """

    record: Record
    effect: Effect | None
    owns: bool


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


def student(connection: Connection, student_id: int) -> StudentRow:
    """Return a student. Raises UnknownStudent."""
    row = connection.execute(_ONE_STUDENT, {"id": student_id}).one_or_none() if _is_id(student_id) else None
    if row is None:
        raise UnknownStudent(student_id)
    return StudentRow._make(row)


def course(connection: Connection, course_id: int) -> CourseRow:
    """Return a course. Raises UnknownCourse."""
    row = connection.execute(_ONE_COURSE, {"id": course_id}).one_or_none() if _is_id(course_id) else None
    if row is None:
        raise UnknownCourse(course_id)
    return CourseRow._make(row)


def students(connection: Connection, *, after: int | None = None, limit: int = 100) -> Page[StudentRow]:
    """Return all students, page by page."""
    return _page(connection, _STUDENTS, StudentRow._make, after, limit)


def courses(connection: Connection, *, after: int | None = None, limit: int = 100) -> Page[CourseRow]:
    """Return all courses, page by page."""
    return _page(connection, _COURSES, CourseRow._make, after, limit)


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
    rows = _rows(connection, _COURSES_OF, id=student_id) if _is_id(student_id) else []
    if not rows:
        raise UnknownStudent(student_id)
    return [] if rows[0][0] is None else list(map(CourseRow._make, rows))


def students_in(
    connection: Connection, course_id: int, *, after: int | None = None, limit: int = 100
) -> Page[StudentRow]:
    """Return the students enrolled in a course, page by page. Raises UnknownCourse; asks again where there is none."""
    if not _is_id(course_id):
        raise UnknownCourse(course_id)
    page = _page(connection, _STUDENTS_IN, StudentRow._make, after, limit, id=course_id)
    if not page.items:
        course(connection, course_id)
    return page


def students_with_courses(
    connection: Connection, *, after: int | None = None, limit: int = 100
) -> Page[StudentWithCourses]:
    """Return all students with their courses, page by page; those without courses as well."""
    start, limit = _bounds(after, limit)
    rows = _rows(connection, _STUDENTS_WITH_COURSES, after=start, limit=limit + 1)
    known = {row[0]: CourseRow._make(row[:4]) for row in rows if row[4] is None}
    items = [
        StudentWithCourses(StudentRow._make(row[:3]), tuple(map(known.__getitem__, row[4])))
        for row in rows
        if row[4] is not None
    ]
    items.sort()  # by id
    more = len(items) > limit
    return Page(items[:limit], items[limit - 1].student.id if more else None)


def is_enrolled(connection: Connection, student_id: int, course_id: int) -> bool:
    """Tell whether a student is enrolled in a course. Raises UnknownStudent, UnknownCourse."""
    _require_ids(student_id, course_id)
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


def history(connection: Connection, student_id: int, course_id: int, *, limit: int = MAX_HISTORY) -> list[HistoryEntry]:
    """Return the commands that named or decided a pair, in order of stamp; the newest where there are more.

    An invalid command without a time stands where it was processed. Raises UnknownStudent and UnknownCourse, for which
    it asks a second time where no command had an effect.
    """
    _require_ids(student_id, course_id)
    _, limit = _bounds(None, limit)
    rows = connection.execute(_HISTORY, {"student": student_id, "course": course_id, "limit": limit}).all()
    entries = [_entry(row, course_id) for row in reversed(rows)]
    if not any(entry.effect for entry in entries):
        is_enrolled(connection, student_id, course_id)
    return entries


def _entry(row: Row[Any], course_id: int) -> HistoryEntry:
    record = record_of(row)
    found = (effect for effect in _EFFECTS if course_id in getattr(record.effects, effect))
    return HistoryEntry(record, next(found, None), row.owns)


def _page(
    connection: Connection,
    statement: TextClause,
    make: Callable[[Iterable[Any]], T],
    after: int | None,
    limit: int,
    **parameters: int,
) -> Page[T]:
    """Ask for one row more than wanted: that it comes says that there is a next page."""
    start, limit = _bounds(after, limit)
    rows = _rows(connection, statement, after=start, limit=limit + 1, **parameters)
    more = len(rows) > limit
    return Page(list(map(make, rows[:limit])), rows[limit - 1][0] if more else None)


def _rows(connection: Connection, statement: TextClause, **parameters: int) -> list[tuple[Any, ...]]:
    """Return the rows as psycopg gives them; to make SQLAlchemy's own of them is a tenth of a page's time."""
    with connection.execute(statement, parameters) as result:
        cursor: Any = result.cursor
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _bounds(after: int | None, limit: int) -> tuple[int, int]:
    start = _MIN_ID if after is None else max(_MIN_ID, min(after, MAX_ID))
    return start, max(1, min(limit, MAX_LIMIT))


def _is_id(value: int) -> bool:
    """Tell whether this can be an id at all; another number would make PostgreSQL compare as numeric, row by row."""
    return _MIN_ID <= value <= MAX_ID


def _require_ids(student_id: int, course_id: int) -> None:
    if not _is_id(student_id):
        raise UnknownStudent(student_id)
    if not _is_id(course_id):
        raise UnknownCourse(course_id)


def _names(sis_ids: Iterable[str]) -> str:
    return quoted(name for name in sis_ids if storable(name))
