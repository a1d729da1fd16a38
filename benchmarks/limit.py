"""PostgreSQL's own limit: the rows of the same commands by INSERT … SELECT on one connection, and nothing else."""

from collections.abc import Sequence
from datetime import UTC, datetime
from time import perf_counter
from typing import Final

import psycopg

from benchmarks.backlog import Run, WrongResultError
from benchmarks.ground import Ground, count
from benchmarks.processes import cpu_seconds
from benchmarks.workload import Enroll

_STAGE: Final = """
    CREATE UNLOGGED TABLE bench_rows (
        message int, student_id bigint, course_id bigint, issued_at timestamptz, command_id uuid)
"""
_INSERT: Final = """
    INSERT INTO student_courses (student_id, course_id, issued_at, command_id)
    SELECT student_id, course_id, issued_at, command_id FROM bench_rows WHERE message BETWEEN %s AND %s
"""


def insert_select(ground: Ground, commands: Sequence[Enroll], *, at_once: int | None = None) -> Run:
    """Let PostgreSQL insert the rows of these commands into a fresh database.

    `at_once` is the number of commands in one transaction, of which each waits for the disk; by default all of them.
    Raises WrongResultError.
    """
    url, size = ground.fresh(), at_once or len(commands)
    now = datetime.now(UTC)
    rows = {pair: (place // size, command) for place, command in enumerate(commands) for pair in command.pairs}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_STAGE)
        with connection.cursor() as cursor, cursor.copy("COPY bench_rows FROM STDIN") as copy:
            for (student_id, course_id), (message, command) in rows.items():
                copy.write_row((message, student_id, course_id, now, command.command_id))
        connection.execute("CREATE INDEX ON bench_rows (message)")
        connection.execute("VACUUM ANALYZE bench_rows")
        connection.execute("CHECKPOINT")
        used, begin = cpu_seconds([ground.postgres.pid]), perf_counter()
        for message in range((len(commands) + size - 1) // size):
            connection.execute(_INSERT, [message, message])
        rate = len(commands) / (perf_counter() - begin)
        used = cpu_seconds([ground.postgres.pid]) - used
    if (there := count(url, "student_courses")) != len(rows):
        raise WrongResultError(f"PostgreSQL alone: {there} of {len(rows)} rows")
    return Run(len(commands), rate, postgres_us=1e6 * used / len(commands))
