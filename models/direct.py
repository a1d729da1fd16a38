"""Statements of the hot path, sent by psycopg itself: SQLAlchemy's layers take longer than psycopg and the network."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final, TypeVar, cast

from psycopg.pq.abc import PGresult
from sqlalchemy import Connection, TextClause
from sqlalchemy.dialects import postgresql

from models.arrays import Binary
from models.pipeline import Await, Question, Statement, statement_of
from models.session import Session

_DIALECT: Final = postgresql.dialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]
T = TypeVar("T")


class Answer:
    """What the server says to a statement, once somebody wants to know: until then it may not even be sent."""

    def __init__(self, connection: Connection, question: Question) -> None:
        self._connection = connection
        self._question = question

    def rows(self) -> list[tuple[Any, ...]]:
        """Return its rows. Raises what `connection.execute` does, for what was sent along, too."""
        return self.each(tuple)

    def each(self, make: Callable[[Any], T]) -> list[T]:
        """Return what `make` makes of each row. Raises what `rows` does."""
        return session_of(self._connection).statements.rows(self._settled(), make)

    @property
    def rowcount(self) -> int:
        """How many rows it wrote. Raises what `rows` does."""
        return self._settled().command_tuples or 0

    def _settled(self) -> PGresult:
        if self._question.result is None:
            _send(self._connection, self._question)
        assert self._question.result is not None  # noqa: S101 (else sending has raised)
        return self._question.result


def ask(connection: Connection, statement: TextClause, parameters: Mapping[str, object]) -> Answer:
    """Run a statement in the transaction of `connection`: with the next whose answer is wanted, or with the commit.

    What it raises is raised there.
    """
    return Answer(connection, _asked(connection, statement, parameters))


def execute_at_once(connection: Connection, statement: TextClause, parameters: Mapping[str, object]) -> None:
    """Run a statement that commits by itself, in one round trip; `connection` is in no transaction."""
    _send(connection, _asked(connection, statement, parameters), begin=False)


async def answer(
    session: Session, ready: Await, statement: TextClause, parameters: Mapping[str, object]
) -> list[tuple[Any, ...]]:
    """Return the rows of a statement that commits by itself, awaited in the event loop. Raises psycopg.Error."""
    result = await session.statements.answered(*_prepared(statement, parameters), ready)
    return session.statements.rows(result, tuple)


def session_of(connection: Connection) -> Session:
    """Return the session in which the statements of `connection` run."""
    return cast(Session, connection.connection.dbapi_connection)


def _asked(connection: Connection, statement: TextClause, parameters: Mapping[str, object]) -> Question:
    return session_of(connection).statements.ask(*_prepared(statement, parameters))


def _send(connection: Connection, question: Question, *, begin: bool = True) -> None:
    try:
        session_of(connection).statements.send(begin=begin)
    except BaseException as error:  # noqa: BLE001 (raised again)
        # Its own way: wraps the error, tells the listeners, and lets go of a connection that is lost or interrupted.
        sql = question.statement.sql.decode()
        connection._handle_dbapi_exception(error, sql, None, None, None)  # noqa: SLF001


def _prepared(statement: TextClause, parameters: Mapping[str, object]) -> tuple[Statement, list[bytes]]:
    prepared, names = _compiled(statement)
    return prepared, [value if isinstance(value := parameters[name], Binary) else str(value).encode() for name in names]


@cache
def _compiled(statement: TextClause) -> tuple[Statement, tuple[str, ...]]:
    """Return the statement, and the names of its parameters in order."""
    compiled: Any = statement.compile(dialect=_DIALECT)
    return statement_of(str(compiled).encode()), tuple(compiled.positiontup)
