"""Loading students and courses: set-based, all or nothing, and the same rows a second time change nothing."""

from collections.abc import Iterable, Iterator
from typing import Any, Final, Literal, NamedTuple, cast

import psycopg
from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DataError, IntegrityError

from enrollment.commands import MAX_ID
from enrollment.errors import EnrollmentError
from models.arrays import storable
from models.db_errors import describe


class CatalogError(EnrollmentError):
    """The rows cannot be loaded. Nothing was, once the transaction is rolled back."""


class BadRow(CatalogError):
    """A row is not valid by itself."""

    def __init__(self, line: int, fault: str) -> None:
        super().__init__(f"Line {line}: {fault}; correct it and load all rows again.")
        self.line = line


class RepeatedRow(CatalogError):
    """Two rows are about the same student or course."""

    def __init__(self, line: int, first: int) -> None:
        super().__init__(
            f"Line {line} is about the same one as line {first}; leave one of them and load all rows again."
        )
        self.line = line
        self.first = first


class SisIdTaken(CatalogError):
    """A row gives a student or course the sis_id of another."""

    def __init__(self, line: int, sis_id: str, owner: int) -> None:
        super().__init__(f"Line {line}: the sis_id {sis_id} belongs to id {owner}; correct one of them and load again.")
        self.line = line
        self.sis_id = sis_id
        self.owner = owner


class RowsRefused(CatalogError):
    """PostgreSQL refuses the rows, for a rule of the table that this project does not know."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"PostgreSQL refuses the rows ({reason}); correct the rows or the table and load them again.")


class SequenceBehind(CatalogError):
    """The ids that the database gives are taken."""

    def __init__(self, table: str) -> None:
        remedy = f"SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table};"
        super().__init__(
            f"The next id of {table} is taken, since somebody added rows with ids of their own and left the sequence "
            f"behind. Say in psql: {remedy} Then do the same again."
        )


class NewStudent(NamedTuple):
    """A student to add or change: known by the id, else by the sis_id. What is None stays as it is."""

    id: int | None = None
    sis_id: str | None = None
    name: str | None = None


class NewCourse(NamedTuple):
    """A course to add or change: known by the id, else by the sis_id. What is None stays as it is."""

    id: int | None = None
    sis_id: str | None = None
    code: str | None = None
    title: str | None = None


class Counts(NamedTuple):
    """What became of the rows."""

    inserted: int
    updated: int
    unchanged: int


class _Statements:
    """The statements for one of the two tables, in the order in which they are sent."""

    def __init__(self, table: str, columns: tuple[str, ...]) -> None:
        every = ("sis_id", *columns)
        self.table = table
        staged = ", ".join(f"coalesce(s.{column}, t.{column})" for column in every)
        there = ", ".join(f"t.{column}" for column in every)
        new = ", ".join(["s.sis_id", *(f"coalesce(s.{column}, '')" for column in columns)])
        listed = ", ".join(every)
        changed = f"t.id = s.id AND ({staged}) IS DISTINCT FROM ({there})"
        self.drop = text("DROP TABLE IF EXISTS pg_temp.staged")
        typed = ", ".join(f"{column} text" for column in every)
        self.create = text(f"CREATE TEMPORARY TABLE staged (line bigint, id bigint, {typed}) ON COMMIT DROP")
        self.copy = f"COPY pg_temp.staged (line, id, {listed}) FROM STDIN"
        # Waits for other loads, and makes other writers of this table wait (so that neither ids nor sis_ids can be
        # taken between the checks and the writes). Enrolling goes on: it only locks rows.
        self.lock = text(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE")
        self.analyze = text("ANALYZE pg_temp.staged")
        self.resolve = text(
            f"UPDATE pg_temp.staged AS s SET id = t.id FROM {table} AS t WHERE s.id IS NULL AND t.sis_id = s.sis_id"
        )
        self.taken = text(f"""
            SELECT s.line, s.sis_id, t.id FROM pg_temp.staged AS s JOIN {table} AS t ON t.sis_id = s.sis_id
             WHERE t.id <> s.id ORDER BY s.line LIMIT 1
        """)
        # In id order, as the worker locks students, so that the two wait for each other instead of deadlocking.
        self.lock_rows = text(f"""
            SELECT count(*) FROM (SELECT FROM {table} AS t JOIN pg_temp.staged AS s ON {changed}
                                   ORDER BY t.id FOR NO KEY UPDATE OF t) AS locked
        """)
        self.update = text(
            f"UPDATE {table} AS t SET ({listed}) = ROW({staged}) FROM pg_temp.staged AS s WHERE {changed}"
        )
        self.insert_given = text(f"""
            INSERT INTO {table} (id, {listed}) OVERRIDING SYSTEM VALUE
            SELECT s.id, {new} FROM pg_temp.staged AS s
             WHERE s.id IS NOT NULL AND NOT EXISTS (SELECT FROM {table} AS t WHERE t.id = s.id) ORDER BY s.id
        """)
        self.sequence = text(f"SELECT pg_get_serial_sequence('{table}', 'id')")
        self.highest = text(f"SELECT max(id) FROM {table}")
        self.insert_others = text(f"""
            INSERT INTO {table} ({listed}) SELECT {new} FROM pg_temp.staged AS s WHERE s.id IS NULL ORDER BY s.line
        """)


_REPEATED: Final = """
    SELECT line, first FROM (SELECT line, min(line) OVER (PARTITION BY {column}) AS first
                               FROM pg_temp.staged WHERE {column} IS NOT NULL) AS lines
     WHERE line > first ORDER BY line LIMIT 1
"""
_REPEATED_SIS_ID: Final = text(_REPEATED.format(column="sis_id"))
_REPEATED_ID: Final = text(_REPEATED.format(column="id"))
_STUDENTS: Final = _Statements("students", ("name",))
_COURSES: Final = _Statements("courses", ("code", "title"))


def upsert_students(connection: Connection, rows: Iterable[NewStudent], *, first_line: int = 1) -> Counts:
    """Add the students that are not there and change those that differ; lines are counted from `first_line`.

    A constant number of statements. Raises CatalogError, and the transaction must then be rolled back.
    """
    return _upsert(connection, _STUDENTS, NewStudent._fields, rows, first_line)


def upsert_courses(connection: Connection, rows: Iterable[NewCourse], *, first_line: int = 1) -> Counts:
    """Add the courses that are not there and change those that differ; lines are counted from `first_line`.

    A constant number of statements. Raises CatalogError, and the transaction must then be rolled back.
    """
    return _upsert(connection, _COURSES, NewCourse._fields, rows, first_line)


def absent(connection: Connection, table: Literal["students", "courses"]) -> list[int]:
    """Return the ids that the load of this table, which went before in this transaction, did not name."""
    statement = text(f"""
        SELECT t.id FROM {table} AS t
         WHERE NOT EXISTS (SELECT FROM pg_temp.staged AS s WHERE s.id = t.id)
           AND NOT EXISTS (SELECT FROM pg_temp.staged AS s WHERE s.sis_id = t.sis_id) ORDER BY t.id
    """)
    return list(connection.execute(statement).scalars())


def _upsert(
    connection: Connection,
    statements: _Statements,
    fields: tuple[str, ...],
    rows: Iterable[NewStudent] | Iterable[NewCourse],
    first_line: int,
) -> Counts:
    connection.execute(statements.drop)
    connection.execute(statements.create)
    total = _stage(connection, statements.copy, _checked(fields, rows, first_line))
    connection.execute(statements.lock)
    connection.execute(statements.analyze)
    _check_together(connection, statements)
    try:
        connection.execute(statements.lock_rows)
        updated = connection.execute(statements.update).rowcount
        given = connection.execute(statements.insert_given).rowcount
        if given:
            _pass_highest(connection, statements)
        others = connection.execute(statements.insert_others).rowcount
    except (DataError, IntegrityError) as error:
        if "(id)=(" in str(error.orig):  # of rows that were given none; those with one are not there yet
            raise SequenceBehind(statements.table) from error
        raise RowsRefused(describe(error)) from error
    return Counts(given + others, updated, total - given - others - updated)


def _checked(
    fields: tuple[str, ...], rows: Iterable[NewStudent] | Iterable[NewCourse], first_line: int
) -> Iterator[tuple[Any, ...]]:
    for line, row in enumerate(rows, first_line):
        id_, sis_id, *texts = row
        sis_id = sis_id or None  # an empty one, as CSV has it, is none
        if id_ is None and sis_id is None:
            raise BadRow(line, "it has neither an id nor a sis_id, so a second load would add it again")
        if id_ is not None and (type(id_) is not int or not 1 <= id_ <= MAX_ID):
            raise BadRow(line, f"the id is not an integer from 1 to {MAX_ID}")
        for field, value in zip(fields[1:], (sis_id, *texts), strict=True):
            if value is not None and not (isinstance(value, str) and storable(value)):
                raise BadRow(line, f"the {field} is not a text that PostgreSQL can hold (U+0000, or half a character)")
        yield (line, id_, sis_id, *texts)


def _stage(connection: Connection, statement: str, rows: Iterator[tuple[Any, ...]]) -> int:
    """Stream the rows into the temporary table; return how many there were."""
    total = 0
    driver = cast(psycopg.Connection, connection.connection.driver_connection)
    with driver.cursor() as cursor, cursor.copy(statement.encode()) as copy:
        for row in rows:
            copy.write_row(row)
            total += 1
    return total


def _check_together(connection: Connection, statements: _Statements) -> None:
    _raise_repeated(connection, _REPEATED_SIS_ID)
    connection.execute(statements.resolve)
    _raise_repeated(connection, _REPEATED_ID)
    taken = connection.execute(statements.taken).one_or_none()
    if taken is not None:
        raise SisIdTaken(*taken)


def _raise_repeated(connection: Connection, statement: TextClause) -> None:
    repeated = connection.execute(statement).one_or_none()
    if repeated is not None:
        raise RepeatedRow(*repeated)


def _pass_highest(connection: Connection, statements: _Statements) -> None:
    """Move the sequence of ids past those given. It never goes back, not even where the transaction does."""
    sequence = connection.scalar(statements.sequence)
    if sequence is not None:  # another system's table may assign its ids by other means
        highest = connection.scalar(statements.highest)
        connection.execute(
            text(f"SELECT setval('{sequence}', :highest) FROM {sequence} WHERE last_value <= :highest"),
            {"highest": highest},
        )
