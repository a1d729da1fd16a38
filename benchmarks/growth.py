"""Whether it slows down as it fills: with many rows, and over many commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import psycopg
from psycopg import sql
from redis import Redis

from benchmarks.backlog import Backlogs, Run, measure, send
from benchmarks.ground import Ground, wait
from benchmarks.processes import resident_mb, running
from benchmarks.systems import ours
from benchmarks.workload import COURSES, enrolls

EACH: Final = 5  # courses of a student, however many students there are
_SAMPLES: Final = 20
_AT_ONCE: Final = 200_000  # commands in the queue: what waits there takes memory of Redis
_PATIENCE: Final = 900.0  # seconds

# Other courses than the commands name most often, and in no particular order.
_FILL: Final = """
    INSERT INTO student_courses (student_id, course_id)
    SELECT student, (student * 31 + place * 197) %% %s + 1
      FROM generate_series(1, %s) AS student, generate_series(1, %s) AS place
"""
_CONSTRAINTS: Final = """
    SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
     WHERE conrelid = 'student_courses'::regclass AND contype IN ('p', 'f', 'u') ORDER BY contype = 'f'
"""
_INDEXES: Final = """
    SELECT indexname, indexdef FROM pg_indexes
     WHERE tablename = 'student_courses'
       AND indexname NOT IN (SELECT conname FROM pg_constraint WHERE conrelid = 'student_courses'::regclass)
"""


def fill(ground: Ground, name: str, rows: int) -> str:
    """Make a database with `rows` rows in `student_courses`; keys and indexes are taken off and put back meanwhile."""
    students = rows // EACH
    url = ground.database(name, students=students)
    table = sql.Identifier("student_courses")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET maintenance_work_mem = '512MB'")
        constraints, indexes = connection.execute(_CONSTRAINTS).fetchall(), connection.execute(_INDEXES).fetchall()
        for index, _ in indexes:
            connection.execute(sql.SQL("DROP INDEX {}").format(sql.Identifier(index)))
        for constraint, _ in reversed(constraints):
            drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(constraint))
            connection.execute(drop)
        connection.execute(_FILL, [COURSES, students, EACH])
        for constraint, definition in constraints:
            add = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} ").format(table, sql.Identifier(constraint))
            connection.execute(add + sql.SQL(definition))
        for _, definition in indexes:
            connection.execute(sql.SQL(definition))
        connection.execute("VACUUM ANALYZE student_courses")
    return url


@contextmanager
def filled(ground: Ground, rows: int) -> Iterator[str]:
    """Give the address of a database with this many rows in `student_courses`; it is dropped at the end."""
    name = f"bench_{rows}"
    try:
        yield fill(ground, name, rows)
    finally:
        ground.postgres.drop_database(name)


def with_rows(ground: Ground, url: str, rows: int, commands: int, *, seed: int, bulk: bool = False) -> Run:
    """Return how fast two processes work off commands for students of a database made by `filled`."""
    ground.empty_redis()
    backlog = enrolls(commands, seed=seed, students=rows // EACH)
    return measure(ground, ours(2, bulk=bulk), url, backlog, Backlogs(), grown=True)


def memory(ground: Ground, commands: int) -> list[tuple[int, float]]:
    """Return how many commands one worker had applied, and the megabytes it held then, some twenty times."""
    url, system, step = ground.fresh(), ours(1, bulk=True), max(1, commands // _SAMPLES)
    found: list[tuple[int, float]] = []
    with running(ground, system, url) as (worker,), ground.client() as client:
        for start in range(0, commands, _AT_ONCE):
            size = min(_AT_ONCE, commands - start)
            send(ground, system, url, enrolls(size, seed=1_000_000 + start))
            for applied in range(start + step, start + size + 1, step):
                done = partial(_has, client, system.stream, applied)
                wait(done, seconds=_PATIENCE, what=f"command {applied}")
                found.append((applied, resident_mb(worker.pid)))
    return found


def _has(client: Redis, stream: str, events: int) -> bool:
    return bool(client.exists(stream)) and int(client.xinfo_stream(stream)["entries-added"]) >= events
