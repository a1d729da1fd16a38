"""Lookups per second on the primary alone, and with one and two standbys, while a worker writes.

`python -m benchmarks.standbys`; a minute. All servers share the cores of one machine, so the rate cannot grow with
standbys here. What it shows is that lookups leave the primary, and what it costs there to be asked how far it is.
"""
# ruff: noqa: T201 - it prints.

import multiprocessing
import random
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from multiprocessing.pool import Pool
from statistics import median
from typing import Final

import psycopg

from benchmarks.ground import BASE, Ground
from benchmarks.processes import cpu_seconds, running
from benchmarks.systems import ours
from benchmarks.workload import COURSES
from enrollment.client import Client
from models import queries
from models.engine import make_engine
from models.standby import Standby
from tests.replication import Node
from tests.root import ROOT

READERS: Final = 2  # processes
SECONDS: Final = 6.0
START: Final = 1.0  # seconds until readers are connected
STUDENTS: Final = 20_000
ROUNDS: Final = 2
FILL: Final = """
    INSERT INTO student_courses (student_id, course_id)
    SELECT student, student * 31 %% 900 + n FROM generate_series(1, %s) AS student, generate_series(1, 5) AS n
"""
SESSIONS: Final = "SELECT pid FROM pg_stat_activity WHERE application_name = 'reader'"
WRITES: Final = 50  # commands per second


def read(primary_url: str, standbys: str, begin: float) -> int:
    """Look up the courses of students at random, as the gateway does; return how many in SECONDS from `begin` on."""
    primary = make_engine(primary_url, application_name="reader").execution_options(isolation_level="AUTOCOMMIT")
    standby = Standby.beside(primary, standbys, application_name="reader") if standbys else None
    draw, count = random.Random(), 0  # noqa: S311 - any student will do
    while (now := time.monotonic()) < begin + SECONDS + START:  # the primary is looked at meanwhile
        with (standby and standby.connect()) or primary.connect() as connection:
            queries.courses_of(connection, draw.randint(1, STUDENTS))
        count += begin <= now < begin + SECONDS
    return count


def write(url: str, stop: threading.Event) -> None:
    """Send commands at a steady rate."""
    with Client(url) as client:
        while not stop.wait(1 / WRITES):
            client.enroll(random.randint(1, STUDENTS), [random.randint(1, COURSES)])  # noqa: S311 - as above


@contextmanager
def standby_of(primary: Node, ground: Ground, name: str) -> Iterator[str]:
    """Start a standby, asynchronous; give the address of the database on it."""
    node = Node(ground.folder / name, durable=False)
    node.folder.mkdir(parents=True, exist_ok=True)
    (node.folder / "password").write_text(primary.password)
    try:
        node.follow(primary.url)
        yield node.url_of(BASE)
    finally:
        node.kill()


def measure(ground: Ground, pool: Pool, standbys: Sequence[str]) -> tuple[float, float]:
    """Return lookups per second, and microseconds of the primary's processor time for each."""
    hosts = ",".join(url.rpartition("@")[2].partition("/")[0] for url in standbys)
    url = f"{standbys[0].rpartition('@')[0]}@{hosts}/{BASE}" if standbys else ""
    begin = time.monotonic() + START
    found = pool.starmap_async(read, [(ground.postgres.url_of(BASE), url, begin)] * READERS, chunksize=1)
    time.sleep(START)
    with psycopg.connect(ground.postgres.url, autocommit=True) as connection:
        pids = [pid for (pid,) in connection.execute(SESSIONS)]
    cpu = cpu_seconds(pids)
    time.sleep(SECONDS)
    cpu = cpu_seconds(pids) - cpu
    count = sum(found.get())
    return count / SECONDS, 1e6 * cpu / count


def main() -> None:
    folder = ROOT / ".local" / "bench" / "standbys"
    shutil.rmtree(folder, ignore_errors=True)
    ground, stop = Ground(folder, students=STUDENTS, durable=False), threading.Event()
    ground.postgres = primary = Node(folder / "postgres", durable=False)
    with ExitStack() as stack:
        stack.enter_context(ground)
        with psycopg.connect(primary.url_of(BASE), autocommit=True) as connection:
            connection.execute(FILL, [STUDENTS])
            connection.execute("VACUUM ANALYZE")
        stack.enter_context(running(ground, ours(1), primary.url_of(BASE)))
        standbys = [stack.enter_context(standby_of(primary, ground, name)) for name in ("two", "three")]
        writer = threading.Thread(target=write, args=(ground.redis.url, stop))
        writer.start()
        stack.callback(writer.join)
        stack.callback(stop.set)
        pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(READERS))
        measure(ground, pool, standbys)  # readers start, and caches warm up
        runs = [[measure(ground, pool, standbys[:number]) for number in range(3)] for _ in range(ROUNDS)]
    print("standbys  lookups/s  processor time of the primary per lookup, µs")
    for number, taken in enumerate(zip(*runs, strict=True)):
        print(f"{number:8} {median(it[0] for it in taken):10,.0f} {median(it[1] for it in taken):10.0f}")


if __name__ == "__main__":
    main()
