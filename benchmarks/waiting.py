"""`python -m benchmarks.waiting`: what commands that wait cost, beside none, and how soon they are decided."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Final

import psycopg

from benchmarks.backlog import Backlogs, measure
from benchmarks.ground import Ground
from benchmarks.processes import cpu_seconds, resident_mb, running
from benchmarks.root import ROOT
from benchmarks.systems import ours
from benchmarks.workload import STUDENTS, enrolls
from models import awaited
from models.deferred import Reason, Wait
from models.engine import make_engine
from models.statistics import statistics
from worker.local.process import Child

IDLE: Final = 30.0  # seconds
FIRST: Final = 1_000_000  # the id of the first course that is waited for
AT_ONCE: Final = 20_000  # commands in the queue of a run
TIMES: Final = 10  # courses that come, one after another, of all that are waited for
APART: Final = 5.0  # seconds between them
PATIENCE: Final = 300.0  # seconds for what is to be decided

_INDEXES: Final = """
    SELECT indexname, indexdef FROM pg_indexes WHERE tablename IN ('commands', 'deferred_commands')
       AND indexname NOT IN (SELECT conname FROM pg_constraint)
"""
SLICE: Final = 1_000_000  # commands that are made at once
# Half wait for their time, in some years; the others for one of so many courses. As the worker writes them.
_FILL: Final = """
      WITH new AS (
           SELECT n, uuidv7() AS id, n %% %(students)s + 1 AS student, n %% 2 = 0 AS timed,
                  %(first)s + 2 * (n / 2 %% %(courses)s) AS course,
                  now() + n * interval '10 s' + interval '1 day' AS until
             FROM generate_series(%(begin)s::bigint, %(end)s) AS n),
           told AS (
           INSERT INTO commands (command_id, command, student_id, course_ids, issued_at, outcome, enrolled, unenrolled,
                                 unchanged, superseded, errors, processed_at, content_hash, waiting)
           SELECT id, 'enroll', student, ARRAY[course], now(), 'waiting', '{}', '{}', '{}', '{}', '[]', now(),
                  id::text::bytea, jsonb_build_object('until', until, 'waiting_for', jsonb_build_array(
                    jsonb_build_object('code', CASE WHEN timed THEN 'effective_at' ELSE 'unknown_courses' END,
                                       'ids', ARRAY[course])))
             FROM new)
    INSERT INTO deferred_commands (reason, waits_for, first_seen, command_id, content_hash, student_id, request, task,
                                   task_id, message_key, position, headers, until, told)
    SELECT CASE WHEN timed THEN 'time' ELSE 'unknown_course' END, CASE WHEN timed THEN 0 ELSE course END, now(), id,
           id::text::bytea, student,
           '{"command":' || jsonb_build_object(
               'command', 'enroll', 'command_id', id, 'course_ids', ARRAY[course], 'student_id', student,
               CASE WHEN timed THEN 'effective_at' ELSE 'wait_until' END,
               to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))::text || '}',
           'enrollment.enroll.v1', id, id, 0, '{}', until, true FROM new
"""
_MORE: Final = """
    UPDATE deferred_commands SET waits_for = %s, request = replace(request, waits_for::text, %s)
     WHERE id IN (SELECT id FROM deferred_commands WHERE reason = 'unknown_course' AND waits_for > %s LIMIT %s)
"""
_STILL: Final = "SELECT 1 FROM deferred_commands WHERE (reason, waits_for) = ('unknown_course', %s) LIMIT 1"
_POSTGRES: Final = "SELECT active_time FROM pg_stat_database WHERE datname = current_database()"


_BETWEEN: Final = """
    INSERT INTO courses (id) OVERRIDING SYSTEM VALUE
    SELECT %(first)s + 2 * n + 1 FROM generate_series(1, %(courses)s) AS n
"""


def fill(url: str, rows: int, courses: int, *, between: bool) -> None:
    """Let so many commands wait."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET maintenance_work_mem = '512MB'")
        indexes = connection.execute(_INDEXES).fetchall()
        for name, _ in indexes:
            connection.execute(f'DROP INDEX "{name}"'.encode())
        for begin in range(1, rows + 1, SLICE):
            ids = {"students": STUDENTS, "first": FIRST, "courses": courses}
            connection.execute(_FILL, {**ids, "begin": begin, "end": min(begin + SLICE - 1, rows)})
        if between:
            connection.execute(_BETWEEN, {"first": FIRST, "courses": courses})
        for _, definition in indexes:
            connection.execute(definition.encode())
        connection.execute("VACUUM ANALYZE deferred_commands")
        connection.execute("VACUUM ANALYZE commands")
        connection.execute("VACUUM ANALYZE courses")
        connection.execute("CHECKPOINT")


def idle(url: str, workers: Sequence[Child]) -> tuple[float, float, float]:
    """Return what a second without work takes: milliseconds of a worker, of PostgreSQL's sessions; and memory, MB."""
    time.sleep(30)  # to start, and to look at everything once
    before, spent = _value(url, _POSTGRES), cpu_seconds([workers[0].pid])
    time.sleep(IDLE)
    after, spent = _value(url, _POSTGRES), cpu_seconds([workers[0].pid]) - spent
    return 1000 * spent / IDLE, (after - before) / IDLE, resident_mb(workers[0].pid)


def come(url: str, course: int, commands: int) -> float:
    """Let a course come; return the seconds until all that waited for it is decided."""
    time.sleep(APART)
    with psycopg.connect(url, autocommit=True) as connection:
        begin = time.perf_counter()
        connection.execute("INSERT INTO courses (id) VALUES (%s)", [course])
        while connection.execute(_STILL, [course]).fetchone():
            if time.perf_counter() > begin + PATIENCE:
                raise TimeoutError(f"{commands} commands were not decided in {PATIENCE:.0f} s")
            time.sleep(0.02)
        return time.perf_counter() - begin


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=1_000_000)
    parser.add_argument("--courses", type=int, default=1_000, help="that are waited for")
    parser.add_argument("--alone", action="store_true", help="without the run in which nothing waits")
    parser.add_argument("--between", action="store_true", help="the catalog has an id beside each of these courses")
    asked = parser.parse_args(arguments)
    with Ground(ROOT / ".local" / "bench" / "waiting") as ground:
        for rows in (asked.commands,) if asked.alone else (0, asked.commands):
            url = ground.fresh()
            beside = ", with a course of the catalog beside each" if asked.between else ""
            say(f"{rows:,} wait, half for their time, half for {asked.courses:,} courses{beside}")
            if rows:
                begin = time.perf_counter()
                fill(url, rows, asked.courses, between=asked.between)
                size = _value(url, "SELECT pg_total_relation_size('deferred_commands') / 1048576.0")
                say(f"  filled in {time.perf_counter() - begin:.0f} s; the table has {size:,.0f} MB")
            with running(ground, ours(1), url) as workers:
                spent, active, memory = idle(url, workers)
                say(f"  idle, per second: {spent:.1f} ms of a worker, {active:.1f} ms in PostgreSQL; {memory:.0f} MB")
                if rows:
                    places = [asked.courses * (2 * n + 1) // (2 * TIMES) for n in range(TIMES)]
                    took = sorted(come(url, FIRST + 2 * place, 1) for place in places)
                    each = rows // 2 // asked.courses
                    say(f"  a course comes, {each:,} wait for it: {median(took):.1f} s, at most {took[-1]:.1f} s")
                    with psycopg.connect(url, autocommit=True) as connection:
                        connection.execute(_MORE, [FIRST - 1, str(FIRST - 1), FIRST, 10_000])
                    say(f"  a course comes, 10,000 wait for it: {come(url, FIRST - 1, 10_000):.1f} s until the last")
            looks(url)
            ground.empty_redis()
            run = measure(ground, ours(1), url, enrolls(AT_ONCE, seed=rows), Backlogs(), grown=True)
            say(f"  commands that do not wait: {run.rate:,.0f}/s; {run.worker_us:.0f} µs of the worker each")


def looks(url: str) -> None:
    """Print how long lists and metrics take."""
    engine = make_engine(url, application_name="waiting")
    with engine.connect() as connection:
        of = Wait(Reason.UNKNOWN_COURSE, FIRST)
        say(f"  a page of the list: {milliseconds(lambda: awaited.page(connection)):.1f} ms")
        say(f"  the same for one course: {milliseconds(lambda: awaited.page(connection, of=of)):.1f} ms")
        say(f"  counts of the list: {milliseconds(lambda: awaited.counts(connection)):.1f} ms")
        say(f"  all metrics of the exporter: {milliseconds(lambda: statistics(connection)):.1f} ms")
    engine.dispose()


def milliseconds(do: Callable[[], object]) -> float:
    """Return the median of five."""
    took = []
    for _ in range(5):
        begin = time.perf_counter()
        do()
        took.append(1000 * (time.perf_counter() - begin))
    return median(took)


def _value(url: str, statement: str) -> Any:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None  # noqa: S101 - the statements return one
    return row[0]


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
