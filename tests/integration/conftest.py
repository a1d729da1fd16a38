"""A service on real servers, and a small catalog: students 1 to 5, courses 10 to 14."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast
from uuid import uuid4

import psycopg
import pytest
from redis import Redis
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from enrollment.names import ENROLL
from models.engine import WORKER, WORKER_NAME, make_engine
from models.pipeline import Pipeline, Question, Statement
from tasks.messages import Message
from worker.publishing import Publisher, connect
from worker.service import Service

STREAM = "enrollment.events"

Entries = list[tuple[str, dict[str, str]]]


def message(task: str = ENROLL, /, *args: Any, task_id: object = None, **kwargs: Any) -> Message:
    """Build a message as the queue delivers it, under a new id unless one is given."""
    id_ = str(task_id or uuid4())
    return Message(task, id_, id_, args, kwargs)


@contextmanager
def counted() -> Iterator[list[str]]:
    """Give the statements that are sent meanwhile by this process, by SQLAlchemy and by pipelines."""
    statements: list[str] = []
    execute, ask = psycopg.Cursor.execute, Pipeline.ask

    def note(cursor: Any, statement: Any, *arguments: Any, **how: Any) -> Any:
        statements.append(statement.decode() if isinstance(statement, bytes) else str(statement))
        return execute(cursor, statement, *arguments, **how)

    def note_asked(pipeline: Pipeline, statement: Statement, *arguments: Any) -> Question:
        statements.append(statement.sql.decode())
        return ask(pipeline, statement, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(psycopg.Cursor, "execute", note)
        patch.setattr(Pipeline, "ask", note_asked)
        yield statements


@pytest.fixture
def catalog(engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO students (id, name) SELECT g, 'S' || g FROM generate_series(1, 5) g"))
        connection.execute(text("INSERT INTO courses (id, code) SELECT g, 'C' || g FROM generate_series(10, 14) g"))


@pytest.fixture
def publisher(redis_url: str) -> Iterator[Publisher]:
    client = connect(redis_url)
    yield Publisher(client, stream=STREAM, maxlen=100_000)
    client.close()


@pytest.fixture
def worker_engine(database_url: str) -> Iterator[Engine]:
    """Give connections as a worker has them."""
    url = database_url.replace("://", "+psycopg://", 1)
    engine = make_engine(url, application_name=WORKER_NAME, options=WORKER, pool_size=5)
    yield engine
    engine.dispose()


@pytest.fixture
def service(worker_engine: Engine, publisher: Publisher, catalog: None) -> Service:
    return Service(worker_engine, publisher)


@pytest.fixture
def events(redis_client: Redis) -> Callable[[], list[dict[str, Any]]]:
    """Give a function that reads the whole stream."""
    return lambda: [json.loads(fields["event"]) for _, fields in cast(Entries, redis_client.xrange(STREAM))]


@pytest.fixture
def rows(engine: Engine) -> Callable[..., list[tuple[Any, ...]]]:
    """Give a function that reads columns of a table, in order."""

    def read(columns: str, table: str) -> list[tuple[Any, ...]]:
        connection: Connection
        with engine.connect() as connection:
            found = connection.execute(text(f"SELECT {columns} FROM {table}"))
            return sorted((tuple(row) for row in found), key=repr)

    def read_again(columns: str, table: str) -> list[tuple[Any, ...]]:
        try:
            return read(columns, table)
        except OperationalError:  # the test stopped the server, and this connection with it
            return read(columns, table)

    return read_again


@pytest.fixture
def load(engine: Engine) -> Callable[[str], None]:
    """Give a function that runs a statement and commits, as the owner of the catalog does."""

    def run(statement: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(statement))

    return run


@pytest.fixture
def at_leisure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the commands that need somebody's lock be singled out, however long a busy machine takes for it."""
    monkeypatch.setattr("tasks.apply._SEARCH", 20.0)


@pytest.fixture
def nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `doctor` give up soon on workers: there is none."""
    monkeypatch.setattr("worker.checks.PING", 0.1)
    monkeypatch.setattr("worker.checks.BEAT", 0.1)
