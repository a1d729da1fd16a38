"""The servers of a benchmark: PostgreSQL and Redis as `enrollment up` starts them, durable, on ports of their own.

PostgreSQL has the memory that its manual gives a server of its own; its default, 128 MB, is meant to start anywhere.
"""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psycopg
from psycopg import sql
from redis import Redis as Client

from benchmarks.workload import COURSES, STUDENTS
from worker.local.postgres import Postgres
from worker.local.redis import Redis
from worker.schema import upgrade

BASE: Final = "bench_base"
RUN: Final = "bench_run"
MOST_BUFFERS: Final = 2048  # MB; the manual: a quarter of the machine's memory
POLL: Final = 0.02  # seconds

# What peers record a command in. Ours is the worker's own table, which holds more.
_PEERS: Final = """
    CREATE TABLE bench_commands (
        command_id uuid PRIMARY KEY,
        student_id bigint NOT NULL,
        course_ids bigint[] NOT NULL,
        outcome text NOT NULL,
        processed_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""
_FILL_STUDENTS: Final = "INSERT INTO students (id, name) SELECT id, 'Student ' || id FROM generate_series(1, %s) AS id"
_FILL_COURSES: Final = """
    INSERT INTO courses (id, code, title) SELECT id, 'C' || id, 'Course ' || id FROM generate_series(1, %s) AS id
"""


class Ground:
    """Both servers, and a template of the database: students and courses, and nobody enrolled.

    Everything is under one folder, which also takes the logs.
    """

    def __init__(self, folder: Path, *, students: int = STUDENTS, durable: bool = True) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        settings = {"shared_buffers": f"{_buffers()}MB", "max_wal_size": "4GB"}
        self.postgres = Postgres(folder / "postgres", durable=durable, settings=settings)
        self.redis = Redis(folder / "redis", durable=durable)
        self._students = students
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self.postgres.stop)
            self.postgres.start()
            undo.callback(self.redis.stop)
            self.redis.start()
            self.database(BASE, students=self._students)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._undo.close()

    def database(self, name: str, *, students: int, courses: int = COURSES) -> str:
        """Make a database with the worker's tables, this many students and courses, and nobody enrolled."""
        self.postgres.drop_database(name)
        url = self.postgres.create_database(name)
        upgrade(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(_PEERS)
            connection.execute(_FILL_STUDENTS, [students])
            connection.execute(_FILL_COURSES, [courses])
            connection.execute("VACUUM ANALYZE")
        return url

    def fresh(self) -> str:
        """Return the address of a database as the template is, and empty Redis."""
        self.empty_redis()
        self.postgres.drop_database(RUN)
        url = self.postgres.create_database(RUN, BASE)
        self.checkpoint()
        return url

    def empty_redis(self) -> None:
        """Empty Redis, its log of writes as well: what one run wrote shall not cost the next."""
        with self.client() as client:
            client.flushall()
            client.bgrewriteaof()
            wait(lambda: not client.info("persistence")["aof_rewrite_in_progress"], seconds=60, what="Redis")

    def checkpoint(self) -> None:
        """Write everything out, so that no run pays for the one before."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute("CHECKPOINT")

    def client(self) -> Client:
        """Return a connection to Redis."""
        return Client.from_url(self.redis.url)


def _buffers() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(MOST_BUFFERS, memory // 4 // 2**20)


def count(url: str, table: str) -> int:
    """Return the number of rows of a table."""
    return int(value(url, sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table))))


def value(url: str, statement: sql.SQL | sql.Composed, parameters: Iterable[object] = ()) -> Any:
    """Return the one value that a statement gives."""
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement, list(parameters)).fetchone()
    assert row is not None  # noqa: S101 - the caller's statement returns one
    return row[0]


def wait(ready: Callable[[], bool], *, seconds: float, what: str) -> None:
    """Wait until `ready` says so. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} took longer than {seconds:.0f} s")
        time.sleep(POLL)
