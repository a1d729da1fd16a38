"""Redis and PostgreSQL that die, fill up, refuse, or let wait."""

import os
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from typing import LiteralString

import psycopg
from psycopg import sql

from tests.acceptance.faults.commands import COURSES, STUDENTS
from tests.acceptance.faults.scenario import Run, Scenario
from worker.local.server import free_port

AWAY = (1.5, 2.5)  # seconds that a server refuses
LOCKED = 12.0  # seconds; above the worker's own lock timeout and above the visibility timeout
ROWS_LOCKED = (1.0, 3.0)  # seconds
# What a colleague's open transaction may hold, by turns: of any student and course that commands name.
ROW_LOCKS: Sequence[LiteralString] = (
    "SELECT FROM students WHERE id = {student} FOR UPDATE",
    "SELECT FROM courses WHERE id = {course} FOR UPDATE",
    "SELECT FROM student_courses WHERE student_id = {student} FOR UPDATE",
    "INSERT INTO student_courses (student_id, course_id) VALUES ({student}, {course}) ON CONFLICT DO NOTHING",
    "LOCK TABLE dead_letters IN SHARE MODE",
)
TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE backend_type = 'client backend' AND application_name <> 'oracle'
"""


def _redis_killed(run: Run) -> None:
    for _ in range(run.count):
        run.pause()
        run.harness.redis.kill()
        run.pause()
        run.harness.redis.start()
        run.injected += 1
        run.until_work_goes_on()


def _redis_full(run: Run) -> None:
    for _ in range(run.count):
        run.pause()
        with run.harness.client() as client:
            client.config_set("maxmemory", 1)
            try:
                run.pause(*AWAY)
            finally:
                client.config_set("maxmemory", 0)
        run.injected += 1
        run.until_work_goes_on()


def _redis_read_only(run: Run) -> None:
    for _ in range(run.count):
        run.pause()
        with run.harness.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", free_port())  # of a primary that is not there
            try:
                run.pause(*AWAY)
            finally:
                client.execute_command("REPLICAOF", "NO", "ONE")
        run.injected += 1
        run.until_work_goes_on()


def _backends_terminated(run: Run) -> None:
    with run.harness.database() as connection:
        for _ in range(run.count):
            run.pause(0.02, 0.4)
            connection.execute(TERMINATE)
            run.injected += 1
            if run.rng.random() < 0.1 or run.injected == 1:
                run.until_work_goes_on()


def _immediate_shutdown(run: Run) -> None:
    """As `pg_ctl stop -m immediate`: no checkpoint, the next start recovers."""
    for _ in range(run.count):
        run.pause()
        os.kill(run.harness.postgres.pid, signal.SIGQUIT)
        while run.harness.postgres.running:
            time.sleep(0.02)
        run.pause()
        run.harness.postgres.start()
        run.injected += 1
        run.until_work_goes_on()


def _connections_exhausted(run: Run) -> None:
    for _ in range(run.count):
        run.pause()
        with run.harness.database() as connection, ExitStack() as taken:
            end = time.monotonic() + run.rng.uniform(*AWAY)
            connection.execute(TERMINATE)
            while time.monotonic() < end:
                try:
                    taken.enter_context(run.harness.database())
                except psycopg.OperationalError:  # all taken
                    connection.execute(TERMINATE)
                    time.sleep(0.1)
        run.injected += 1
        run.until_work_goes_on()


def _locked(run: Run) -> None:
    """Somebody holds what the worker needs, by turns rows of students and the table of enrollments."""
    for number in range(run.count):
        run.pause()
        with run.harness.database() as connection, connection.transaction():
            if number % 2:
                connection.execute("SELECT FROM students FOR UPDATE")
            else:
                connection.execute("LOCK TABLE student_courses IN ACCESS EXCLUSIVE MODE")
            time.sleep(LOCKED)
        run.injected += 1
        run.until_work_goes_on()


def _rows_locked(run: Run) -> None:
    """Somebody holds one student, course or row: all else goes on meanwhile, and nothing is lost where workers die."""
    for number in range(run.count):
        run.harness.revive()
        run.pause()
        ids = {"student": run.rng.choice(STUDENTS), "course": run.rng.choice(COURSES)}
        with run.harness.database() as connection, connection.transaction(force_rollback=True):
            connection.execute(sql.SQL(ROW_LOCKS[number % len(ROW_LOCKS)]).format(**ids))
            run.until_work_goes_on("others go on")
            run.pause(*ROWS_LOCKED)
            if number % 2:  # often with commands that it has just put off
                _kill(run, number // 2)
        run.injected += 1
        run.pause(0, 1.2)  # just after the lock went: in the middle of a release, at best
        if number % 3 == 1:
            _kill(run, number // 2)
        elif number % 3:
            with run.harness.database() as connection:
                connection.execute(TERMINATE)
        run.until_work_goes_on()


def _kill(run: Run, number: int) -> None:
    index = number % len(run.harness.workers)
    run.harness.workers[index].kill()
    run.harness.start_worker(index, wait=False)


def _read_only(run: Run) -> None:
    for _ in range(run.count):
        run.pause()
        try:
            _set_read_only(run, "on")
            run.pause(*AWAY)
        finally:
            _set_read_only(run, "off")
        run.injected += 1
        run.until_work_goes_on()


def _set_read_only(run: Run, value: str) -> None:
    with run.harness.database() as connection, suppress(psycopg.errors.ActiveSqlTransaction):
        connection.execute("SET default_transaction_read_only = off")
        connection.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}")
        connection.execute("SELECT pg_reload_conf()")


SCENARIOS: Sequence[Scenario] = [
    Scenario("Redis: kill -9 and restart", 20, 2, _redis_killed, seconds=12),
    Scenario("Redis: out of memory", 5, 1, _redis_full, seconds=8),
    Scenario("Redis: read-only replica", 5, 1, _redis_read_only, seconds=8),
    Scenario("PostgreSQL: backends terminated", 100, 5, _backends_terminated, seconds=4),
    Scenario("PostgreSQL: immediate shutdown and restart", 20, 1, _immediate_shutdown, seconds=8),
    Scenario("PostgreSQL: connections exhausted", 5, 1, _connections_exhausted, seconds=6),
    Scenario("PostgreSQL: a held lock for 12 s", 5, 1, _locked, seconds=16),
    Scenario("PostgreSQL: one row locked, workers killed", 40, 5, _rows_locked, seconds=20),
    Scenario("PostgreSQL: default_transaction_read_only", 5, 1, _read_only, seconds=6),
]
