"""Statements of the hot path, sent by psycopg itself: SQLAlchemy's layers take longer than psycopg and the network."""

from collections.abc import Mapping
from functools import cache
from typing import Any, Final, cast

import psycopg
from sqlalchemy import Connection, TextClause
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from models.session import Session

_DIALECT: Final = PGDialect_psycopg()  # type: ignore[no-untyped-call]

Cursor = psycopg.Cursor[tuple[Any, ...]]


def execute(connection: Connection, statement: TextClause, parameters: Mapping[str, Any]) -> Cursor:
    """Run a statement in the transaction of `connection`; return its cursor. Raises what `connection.execute` does."""
    session = _session(connection)
    sql = _sql(statement)
    try:
        return session.execute(sql.encode(), parameters)
    except psycopg.Error as error:
        # Its own way: wraps the error, tells the listeners, and lets go of a connection that is lost.
        connection._handle_dbapi_exception(error, sql, parameters, None, None)  # noqa: SLF001


def execute_at_once(connection: Connection, statement: TextClause, parameters: Mapping[str, Any]) -> None:
    """Run a statement that commits by itself, in one round trip; `connection` is in no transaction."""
    session = _session(connection)
    session.autocommit = True
    try:
        execute(connection, statement, parameters)
    finally:
        if not session.closed:
            session.autocommit = False


def _session(connection: Connection) -> Session:
    return cast(Session, connection.connection.driver_connection)


@cache
def _sql(statement: TextClause) -> str:
    return str(statement.compile(dialect=_DIALECT))
