"""`python -m benchmarks.history`: what it costs to read years of commands, and what the workers notice of it."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import islice
from logging import WARNING
from multiprocessing import get_context
from statistics import median
from typing import Final
from uuid import UUID

import psycopg
import structlog
from psycopg import sql
from sqlalchemy import Connection, text

from benchmarks.backlog import Backlogs, measure
from benchmarks.ground import Ground, value
from benchmarks.root import ROOT
from benchmarks.systems import ours
from benchmarks.workload import COURSES, STUDENTS, enrolls
from models import feed
from models.archive import commands_before
from models.engine import make_engine
from tasks.retention import retain

PAGE: Final = 1000
PAGES: Final = 50  # at each place
BATCH: Final = 100  # commands of a transaction
EXPORTED: Final = 500_000  # commands of which the time is taken
AT_ONCE: Final = 60_000  # commands in the queue of a run: some ten seconds
KEPT: Final = 10  # days, where something is removed
TICK: Final = 5.0  # seconds between two calls of `tasks.retain`, as beat makes them

_INDEXES: Final = """
    SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'commands' AND indexname NOT IN
           (SELECT conname FROM pg_constraint WHERE conrelid = 'commands'::regclass)
"""
_TRANSACTIONS: Final = "DO $$ BEGIN FOR n IN 1..{} LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$"
# A million commands a day, the last of them an hour ago.
_FILL: Final = """
    INSERT INTO commands (command_id, command, student_id, course_ids, issued_at, source, outcome, enrolled, unenrolled,
                          unchanged, superseded, errors, processed_at, content_hash, position)
    SELECT gen_random_uuid(), 'enroll', n %% %(students)s + 1, ARRAY[n %% %(courses)s + 1], at, 'history', 'applied',
           ARRAY[n %% %(courses)s + 1], '{}', '{}', '{}', '[]', at, uuid_send(gen_random_uuid()),
           %(first)s + n / %(batch)s
      FROM generate_series(0, %(rows)s - 1) AS n,
           LATERAL (SELECT now() - interval '1 hour' - (%(rows)s - n) * interval '86.4 ms') AS t(at)
"""


def fill(url: str, rows: int) -> None:
    """Fill `commands`, with as many transactions in the numbers of its rows as workers would have had."""
    with psycopg.connect(url, autocommit=True) as connection:
        first = connection.execute("SELECT pg_current_xact_id()::text::bigint").fetchone()
        connection.execute("SET synchronous_commit = off")
        connection.execute(_TRANSACTIONS.format(rows // BATCH + 1).encode())
        indexes = connection.execute(_INDEXES).fetchall()
        for name, _ in indexes:
            connection.execute(f'DROP INDEX "{name}"'.encode())
        sizes = {"students": STUDENTS, "courses": COURSES, "batch": BATCH, "rows": rows}
        connection.execute(_FILL, {**sizes, "first": first and first[0]})
        connection.execute("SET maintenance_work_mem = '512MB'")
        for _, definition in indexes:
            connection.execute(definition.encode())
        connection.execute("VACUUM ANALYZE commands")
        connection.execute("CHECKPOINT")


def pages(connection: Connection, after: feed.Cursor) -> list[float]:
    """Return milliseconds per page from a cursor on."""
    took: list[float] = []
    for _ in range(PAGES):
        begin = time.perf_counter()
        page = feed.page(connection, str(after), rows=PAGE)
        took.append(1000 * (time.perf_counter() - begin))
        after = page.cursor
    return took


def places(connection: Connection) -> Iterator[tuple[str, feed.Cursor]]:
    """Yield where pages are measured."""
    low, high = connection.execute(text("SELECT min(position), max(position) FROM commands")).one()
    epoch = feed.since(connection, datetime.now(UTC)).epoch
    steps = (PAGES + 1) * PAGE // BATCH
    for name, position in (("beginning", low), ("middle", (low + high) // 2), ("end", high - steps)):
        yield name, feed.Cursor(epoch, position, UUID(int=0))


def read_on(url: str) -> None:
    """Read the feed again and again, as readers that were away do, without a pause."""
    engine = make_engine(url, application_name="reader")
    while True:
        after = None
        more = True
        while more:
            with engine.connect() as connection:
                page = feed.page(connection, after, rows=PAGE)
            after, more = str(page.cursor), page.more


def export_on(url: str) -> None:
    """Write archives, one after another."""
    engine = make_engine(url, application_name="archive")
    while True:
        for _ in commands_before(engine, datetime.now(UTC)):
            pass


def retain_as_beat_does(url: str) -> None:
    """Remove what is old for a moment at a time, as a worker does."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(WARNING))
    engine = make_engine(url, application_name="retention")
    while True:
        retain(engine, KEPT)
        time.sleep(TICK)


def retain_without_pause(url: str) -> None:
    """Remove what is old, as `enrollment retention run` does."""
    retain(make_engine(url, application_name="retention"), KEPT, budget=3600, at_once=True)


@contextmanager
def beside(task: Callable[[str], None] | None, url: str) -> Iterator[None]:
    """Let a process do this meanwhile."""
    child = task and get_context("spawn").Process(target=task, args=(url,), daemon=True)
    if child:
        child.start()
    try:
        yield
    finally:
        if child:
            child.kill()
            child.join()


def removed(url: str) -> int:
    """Return how many rows retention has removed."""
    return int(value(url, sql.SQL("SELECT removed FROM retention")))


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args(arguments)
    with Ground(ROOT / ".local" / "bench" / "history") as ground:
        url = ground.fresh()
        fill(url, asked.commands)
        say(f"filled with {asked.commands:,} commands")
        engine = make_engine(url, application_name="history")
        with engine.connect() as connection:
            for name, after in places(connection):
                took = sorted(pages(connection, after))
                say(f"{name}: {median(took):.1f} ms a page of {PAGE:,}, {took[0]:.1f} to {took[-1]:.1f}")
        begin = time.perf_counter()
        count = sum(1 for _ in islice(commands_before(engine, datetime.now(UTC)), EXPORTED))
        say(f"export reads {count / (time.perf_counter() - begin):,.0f} commands a second")
        engine.dispose()
        tasks = (None, read_on, None, export_on, None, retain_as_beat_does, None, retain_without_pause)
        for number, task in enumerate(tasks * asked.rounds):
            ground.empty_redis()
            ground.checkpoint()
            before, begin = removed(url), time.perf_counter()
            with beside(task, url):
                run = measure(ground, ours(1), url, enrolls(AT_ONCE, seed=number), Backlogs(), grown=True)
            gone = (removed(url) - before) / (time.perf_counter() - begin)
            beside_it = f", {gone:,.0f} rows a second removed" if gone else ""
            say(f"worker, {task.__name__ if task else 'alone'}: {run.rate:,.0f} commands a second{beside_it}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
