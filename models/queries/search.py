"""What a person looks for: students and courses by what they know of them, and all the commands of one student.

As in `models.queries`: one statement per function, plain tuples, long answers page by page.
"""

import re
import string
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from enrollment.commands import MAX_ID
from enrollment.fold import Record
from models.arrays import plain, quoted, storable
from models.queries.lookups import CourseRow, StudentRow
from models.queries.paging import Page
from models.records import RECORD_COLUMNS, record_of

_PUNCTUATION: Final = string.punctuation
_QUOTED: Final = _PUNCTUATION.replace("'", "''")
_SEPARATORS: Final = re.compile(rf"[\s{re.escape(_PUNCTUATION)}]+")

# Each word of a name by its beginning, through an index of its own. Punctuation first becomes spaces: PostgreSQL's
# parser would take `a-1` for a word and a negative number, and `a/b` for a path. Migrations repeat this expression.
NAME_WORDS: Final = (
    f"to_tsvector('simple'::regconfig, translate(coalesce(name, ''), '{_QUOTED}', '{' ' * len(_PUNCTUATION)}'))"
)

_FIND_STUDENTS: Final = text(f"""
    SELECT id, sis_id, coalesce(name, '') FROM (
        SELECT id, sis_id, name FROM students WHERE id = CAST(:id AS bigint)
         UNION
        SELECT id, sis_id, name FROM students WHERE sis_id = CAST(:said AS text)
         UNION
        (SELECT id, sis_id, name FROM students
          WHERE {NAME_WORDS} @@ to_tsquery('simple', CAST(:words AS text)) AND id > CAST(:after AS bigint)
          ORDER BY id LIMIT CAST(:limit AS bigint))) AS found
     WHERE id > CAST(:after AS bigint) ORDER BY id LIMIT CAST(:limit AS bigint)
""")
# A catalog of courses is small enough to be looked through.
_FIND_COURSES: Final = text("""
    SELECT id, sis_id, coalesce(code, ''), coalesce(title, '') FROM courses
     WHERE id > CAST(:after AS bigint)
       AND (id = CAST(:id AS bigint) OR sis_id = CAST(:said AS text)
            OR code ILIKE ANY(CAST(:patterns AS text[])) OR title ILIKE ANY(CAST(:patterns AS text[])))
     ORDER BY id LIMIT CAST(:limit AS bigint)
""")
_COURSES_BY_ID: Final = text("""
    SELECT id, sis_id, coalesce(code, ''), coalesce(title, '') FROM courses WHERE id = ANY(CAST(:ids AS bigint[]))
""")
# An invalid command without a time stands where it was processed, as in a pair's history.
_COMMANDS_OF: Final = text(f"""
    SELECT {RECORD_COLUMNS} FROM commands
     WHERE student_id = CAST(:student AS bigint)
       AND (CAST(:time AS timestamptz) IS NULL
            OR (coalesce(issued_at, processed_at), command_id) < (CAST(:time AS timestamptz), CAST(:command AS uuid)))
     ORDER BY coalesce(issued_at, processed_at) DESC, command_id DESC LIMIT CAST(:limit AS bigint)
""")


class Place(NamedTuple):
    """Where in a student's commands a page ends."""

    time: datetime
    command_id: UUID


def find_students(connection: Connection, query: str, *, after: int | None = None, limit: int = 50) -> Page[StudentRow]:
    """Return the students with this id, this sis_id, or words that begin so in their name, page by page."""
    words = " & ".join(_beginning(word) for word in _SEPARATORS.split(query) if word) if storable(query) else ""
    parameters = {"id": _number(query), "said": _text(query), "words": words, "after": after or 0, "limit": limit + 1}
    rows = connection.execute(_FIND_STUDENTS, parameters).all()
    return _page([StudentRow._make(row) for row in rows], limit)


def find_courses(connection: Connection, query: str, *, after: int | None = None, limit: int = 50) -> Page[CourseRow]:
    """Return the courses with this id, this sis_id, or this text in their code or title, page by page."""
    escaped = re.sub(r"([\\%_])", r"\\\1", _text(query) or "")
    parameters = {
        "id": _number(query),
        "said": _text(query),
        "patterns": quoted(f"%{form}%" for form in _forms(escaped)),
        "after": after or 0,
        "limit": limit + 1,
    }
    rows = connection.execute(_FIND_COURSES, parameters).all()
    return _page([CourseRow._make(row) for row in rows], limit)


def courses_by_id(connection: Connection, course_ids: Iterable[int]) -> dict[int, CourseRow]:
    """Return those of these courses that exist."""
    ids = plain(sorted({id_ for id_ in course_ids if 0 < id_ <= MAX_ID}))
    return {row[0]: CourseRow._make(row) for row in connection.execute(_COURSES_BY_ID, {"ids": ids})}


def commands_of(
    connection: Connection, student_id: int, *, before: Place | None = None, limit: int = 20
) -> tuple[list[Record], Place | None]:
    """Return the commands that named a student, the newest first, and where the next page begins."""
    time, command_id = before or (None, None)
    parameters = {"student": student_id, "time": time, "command": command_id, "limit": limit + 1}
    records = [record_of(row) for row in connection.execute(_COMMANDS_OF, parameters)]
    if len(records) <= limit:
        return records, None
    last = records[limit - 1]
    return records[:limit], Place(last.issued_at or last.processed_at, last.command_id)


def _page(rows: list[Any], limit: int) -> Page[Any]:
    return Page(rows[:limit], rows[limit - 1].id if len(rows) > limit else None)


def _beginning(word: str) -> str:
    return "(" + " | ".join(f"'{form}':*" for form in _forms(word)) + ")"


def _forms(word: str) -> list[str]:
    """Return how a word may be written: a database with the locale C knows no capitals but those of ASCII."""
    return sorted({word, word.lower(), word.capitalize()} - {""})


def _number(query: str) -> int | None:
    digits = query.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= len(str(MAX_ID))):
        return None
    return int(digits) if int(digits) <= MAX_ID else None


def _text(query: str) -> str | None:
    return query.strip() if storable(query) else None
