"""Students and courses that leave, and courses that close."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Literal

from sqlalchemy import Connection, text
from sqlalchemy.exc import IntegrityError

from enrollment.errors import EnrollmentError
from models import audit
from models.arrays import plain, quoted
from models.db_errors import describe

Table = Literal["students", "courses"]
_MOST_NAMED: Final = 10
_OF: Final = {"students": "student_id", "courses": "course_id"}
_COLUMNS: Final = {"students": "id, sis_id, name", "courses": "id, sis_id, code, title"}


class StillEnrolled(EnrollmentError):
    """Enrollments stand, so nothing was removed."""

    def __init__(self, table: Table, ids: Sequence[int], enrollments: int) -> None:
        shown = ", ".join(map(str, ids[:_MOST_NAMED])) + (" and more" if len(ids) > _MOST_NAMED else "")
        super().__init__(
            f"Of the {table} to be removed, {len(ids):,} have enrollments, {enrollments:,} together ({shown}): nothing "
            "was removed. Unenroll them first, with `catalog remove --unenroll` for instance."
        )


class StillReferred(EnrollmentError):
    """Rows of another system refer to what was to be removed, so nothing was; the transaction must be rolled back."""

    def __init__(self, table: Table, reason: str) -> None:
        super().__init__(f"Another table refers to some of these {table} ({reason}): nothing was removed.")


def resolve(connection: Connection, table: Table, names: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
    """Return the ids of those with these sis_ids, else ids, in order; and the names that nobody has."""
    found = text(f"""
        SELECT said.name, coalesce(by_sis.id, by_id.id) FROM unnest(CAST(:names AS text[])) AS said(name)
          LEFT JOIN {table} AS by_sis ON by_sis.sis_id = said.name
          LEFT JOIN {table} AS by_id
                 ON by_id.id = CASE WHEN said.name ~ '^[0-9]{{1,18}}$' THEN CAST(said.name AS bigint) END
    """)
    rows = connection.execute(found, {"names": quoted(names)}).all()
    return sorted({id_ for _, id_ in rows if id_ is not None}), tuple(name for name, id_ in rows if id_ is None)


def standing(connection: Connection, table: Table, ids: Sequence[int]) -> list[tuple[int, list[int]]]:
    """Return the enrollments of students or courses: by student, up to 1,000 courses at a time."""
    statement = text(f"""
        SELECT student_id, array_agg(course_id ORDER BY course_id) FROM (
               SELECT student_id, course_id,
                      row_number() OVER (PARTITION BY student_id ORDER BY course_id) / 1000 AS part
                 FROM student_courses WHERE {_OF[table]} = ANY(CAST(:ids AS bigint[]))) AS paged
         GROUP BY student_id, part ORDER BY student_id, part
    """)
    return [(row[0], list(row[1])) for row in connection.execute(statement, {"ids": plain(ids)})]


def remove_ids(connection: Connection, table: Table, ids: Sequence[int], *, by: str) -> int:
    """Remove students or courses, all or nothing; return how many. What commands said of them stays known.

    Raises StillEnrolled and StillReferred; the caller commits. The audit names `by`.
    """
    parameters: dict[str, Any] = {"ids": plain(ids)}
    # No command can enroll them from here on: it would have to lock the row.
    connection.execute(
        text(f"SELECT FROM {table} WHERE id = ANY(CAST(:ids AS bigint[])) ORDER BY id FOR UPDATE"), parameters
    )
    column = _OF[table]
    counts = connection.execute(
        text(f"""
            SELECT {column}, count(*) FROM student_courses WHERE {column} = ANY(CAST(:ids AS bigint[]))
             GROUP BY {column} ORDER BY {column}
        """),
        parameters,
    ).all()
    if counts:
        raise StillEnrolled(table, [row[0] for row in counts], sum(row[1] for row in counts))
    gone = f"DELETE FROM {table} WHERE id = ANY(CAST(:ids AS bigint[])) RETURNING id"
    subject = audit.student if table == "students" else audit.course
    try:
        return _noted(connection, gone, ids, by=by, action=audit.REMOVED, subject=subject)
    except IntegrityError as error:
        raise StillReferred(table, describe(error)) from error


def close(connection: Connection, ids: Sequence[int], *, by: str) -> int:
    """Let courses take no more enrollments; return how many were open. The caller commits. The audit names `by`."""
    statement = """
        INSERT INTO closed_courses (course_id) SELECT unnest(CAST(:ids AS bigint[]))
        ON CONFLICT DO NOTHING RETURNING course_id
    """
    return _noted(connection, statement, ids, by=by, action=audit.CLOSED, subject=audit.course)


def reopen(connection: Connection, ids: Sequence[int], *, by: str) -> int:
    """Let courses take enrollments again; return how many were closed. The caller commits. The audit names `by`."""
    statement = "DELETE FROM closed_courses WHERE course_id = ANY(CAST(:ids AS bigint[])) RETURNING course_id"
    return _noted(connection, statement, ids, by=by, action=audit.OPENED, subject=audit.course)


def export(connection: Connection, table: Table) -> Iterator[Sequence[str]]:
    """Yield the columns' names, then all rows, as `catalog load` reads them; 1,000 are held at a time."""
    columns = _COLUMNS[table]
    yield columns.split(", ")
    statement = text(f"SELECT {columns} FROM {table} ORDER BY id").execution_options(yield_per=1000)
    for row in connection.execute(statement):
        yield ["" if value is None else str(value) for value in row]


def _noted(
    connection: Connection, statement: str, ids: Sequence[int], *, by: str, action: str, subject: Callable[[int], str]
) -> int:
    """Do this to those ids, and note who did it to which; return how many."""
    done = connection.execute(text(statement), {"ids": plain(ids)}).scalars().all()
    audit.add(connection, by, action, map(subject, done))
    return len(done)
