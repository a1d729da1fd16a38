"""Where the faults happen: servers with proxies in front, workers and beat. All on loopback."""

import shutil
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.acceptance.faults.commands import COURSES, STUDENTS
from tests.acceptance.faults.oracle import Seen, as_events
from tests.acceptance.faults.producers import Sender
from tests.acceptance.faults.sent_log import SentLog
from tests.acceptance.faults.servers import Servers
from tests.acceptance.faults.waits import until
from tests.root import ROOT
from worker.local.process import Child
from worker.local.stack import environment
from worker.schema import upgrade

VISIBILITY_TIMEOUT: Final = 5  # seconds; the shortest that is allowed
STREAM: Final = "enrollment.events"
START_TIMEOUT: Final = 60.0  # seconds until a worker is ready, on a busy machine
DRAIN_TIMEOUT: Final = 90.0  # seconds; far above what any fault may cost once it is over
STEPS: Final = ("", "\x06\x163", "\x06\x166", "\x06\x169")  # how kombu names the lists of other priorities
LISTS: Final = [f"{queue}{step}" for queue in ("enrollment", "enrollment.bulk") for step in STEPS]
RECORDS: Final = ["unacked", "unacked_index", "unacked_deliveries"]
# In the order in which a relay reads them: it may be looking, every two seconds, while they are emptied.
TABLES: Final = "outbox, commands, student_courses, tombstones, replace_marks, dead_letters, deferred_commands"


class Harness(Servers):
    """Everything that a fault needs. What it started is stopped when it is left, however that happens."""

    def __init__(self, *, workers: int = 2, variables: Mapping[str, str] | None = None, revision: str = "head") -> None:
        super().__init__()
        self.workers: list[Child] = []
        self.beat: Child | None = None
        self._children: list[Child] = []  # these, and those of faults
        self.ended: list[str] = []  # workers that ended by themselves: none ever should
        self.began = 0.0
        self._wanted = workers
        self._revision = revision
        self._variables = dict(variables or {})

    # --- starting and stopping

    def __enter__(self) -> Self:
        try:
            self._start_redis()
            self.postgres.start()
            self._start_broker()
            self.database_url = self.postgres.create_database("faults")
            upgrade(self.database_url, self._revision)
            self._write_catalog()
            self.open_proxies()
            self.beat = self._celery("beat", "beat", "--pidfile=")
            self.beat.start()
            for index in range(self._wanted):
                self.start_worker(index, wait=False)
            for worker in self.workers:
                self.until_ready(worker)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def stop(self) -> None:
        with ExitStack() as last:  # whatever fails, the rest is stopped as well
            last.callback(shutil.rmtree, self.folder, ignore_errors=True)
            last.callback(shutil.rmtree, (self.postgres.folder / "elsewhere").resolve(), ignore_errors=True)
            last.callback(self.postgres.stop)
            last.callback(self._stop_redis)
            last.callback(self._stop_broker)
            for proxy in self.proxies.values():
                last.callback(proxy.close)
            for child in self._children:
                last.callback(child.kill)

    @property
    def variables(self) -> dict[str, str]:
        """The settings of the workers, who see everything through the proxies."""
        return {
            "ENROLLMENT_DATABASE_URL": self._through(self.database_url, "database"),
            **self._redis_variables(),
            "ENROLLMENT_VISIBILITY_TIMEOUT": str(VISIBILITY_TIMEOUT),
            "ENROLLMENT_LOG_FORMAT": "json",
            **self._variables,
        }

    def new_worker(
        self,
        name: str,
        *options: str,
        app: str = "worker",
        variables: Mapping[str, str] | None = None,
        folder: Path = ROOT,
    ) -> Child:
        """Return a worker that is not started; `folder` has its program."""
        quick = ("--without-mingle", "--without-gossip", "--loglevel=INFO")
        return self._celery(
            name,
            "worker",
            f"--hostname={name}@localhost",
            *quick,
            *options,
            app=app,
            variables=variables,
            folder=folder,
        )

    def start_worker(self, index: int, *, wait: bool = True) -> Child:
        """Start worker `index`, anew where it has ended."""
        if index == len(self.workers):
            self.workers.append(self.new_worker(f"worker{index + 1}"))
        worker = self.workers[index]
        if not worker.running:
            worker.log.write_bytes(b"")
            worker.start()
        if wait:
            self.until_ready(worker)
        return worker

    def until_ready(self, worker: Child, processes: int = 1) -> None:
        """Wait until it takes messages. Raises AssertionError with its last words when it ends instead."""
        end = time.monotonic() + START_TIMEOUT
        while worker.log.read_bytes().count(b" ready.") < processes:
            assert worker.running, f"{worker.name} ended: {worker.tail(40)}"
            assert time.monotonic() < end, f"{worker.name} is not ready: {worker.tail(40)}"
            time.sleep(0.02)

    def revive(self) -> None:
        """Start what should run and does not. A worker that nobody killed must not have ended."""
        for index, worker in enumerate(self.workers):
            if not worker.running:
                self.ended.append(f"{worker.name} with {worker.returncode}: {worker.tail(5)}")
                self.start_worker(index)
        if self.beat is not None and not self.beat.running:
            self.ended.append(f"beat with {self.beat.returncode}: {self.beat.tail(5)}")
            self.beat.start()

    def rest(self) -> None:
        """Stop the workers and beat, for a fault that brings its own."""
        for child in [*self.workers, self.beat]:
            if child is not None:
                child.stop()

    def wake(self) -> None:
        """Start the workers and beat again."""
        if self.beat is not None:
            self.beat.start()
        for index in range(len(self.workers)):
            self.start_worker(index)

    def _celery(
        self,
        name: str,
        *arguments: str,
        app: str = "worker",
        variables: Mapping[str, str] | None = None,
        folder: Path = ROOT,
    ) -> Child:
        log = self.folder / f"{name}.log"
        log.write_bytes(b"")
        child = Child(
            name=name,
            command=[sys.executable, "-m", "celery", "-A", app, *arguments],
            log=log,
            env=environment({**self.variables, **(variables or {})}),
            cwd=folder,
        )
        self._children.append(child)
        return child

    def new_sender(self, sent_log: SentLog) -> Sender:
        """Return a producer's connection to the broker, which goes there directly."""
        return Sender(self.broker_url, sent_log)

    # --- looking

    @property
    def in_hand(self) -> set[str]:
        """The tags of the messages that workers hold."""
        with self.client() as client:
            return set(client.hkeys("unacked"))

    @property
    def told(self) -> int:
        """How many events there ever were."""
        with self.client() as client:
            return int(client.xinfo_stream(STREAM)["entries-added"]) if client.exists(STREAM) else 0

    @property
    def queued(self) -> bool:
        """Whether the broker has something that is not done with."""
        return any(self._queued().values())

    def leftovers(self) -> list[str]:
        """Return what is not done with, in words."""
        counts = self._queued()
        with self.database() as connection:
            for table in ("outbox", "deferred_commands"):
                row = connection.execute(f"SELECT count(*) AS rows FROM {table}").fetchone()
                counts[table] = row["rows"] if row else 0
        return [f"{count} in {name!r}" for name, count in counts.items() if count]

    def _queued(self) -> dict[str, int]:
        """Count what the broker has."""
        with self.client() as client, client.pipeline(transaction=True) as pipeline:
            for name in LISTS:
                pipeline.llen(name)
            for name in RECORDS:
                pipeline.exists(name)
            return dict(zip([*LISTS, *RECORDS], pipeline.execute(), strict=True))

    def drain(self) -> None:
        """Wait until nothing is under way, or for as long as that can be borne."""
        until(lambda: not self.leftovers(), DRAIN_TIMEOUT, soft=True, every=0.1)

    def seen(self) -> Seen:
        """Read what there is to judge."""
        leftovers = self.leftovers()
        if leftovers:  # beat may just have sent something
            until(lambda: not self.leftovers(), 5, soft=True)
            leftovers = self.leftovers()
        with self.database() as connection, self.client() as client:
            pairs = connection.execute("SELECT student_id, course_id FROM student_courses").fetchall()
            commands = connection.execute("SELECT * FROM commands").fetchall()
            letters = connection.execute("SELECT code, command_id, task, payload, headers FROM dead_letters").fetchall()
            clock = connection.execute("SELECT to_timestamp(%s) AS began, now()", [self.began]).fetchone() or {}
            entries = [entry for _, entry in client.xrange(STREAM)]
        return Seen(
            pairs={(row["student_id"], row["course_id"]) for row in pairs},
            commands={str(row["command_id"]): row for row in commands},
            events=as_events(entries),
            letters=letters,
            leftovers=leftovers,
            ended=list(self.ended),
            began=clock["began"],
            now=clock["now"],
        )

    # --- between two faults

    def reset(self) -> SentLog:
        """Forget everything that was, while nothing is under way; return an empty book."""
        self.drain()
        self.ended.clear()
        self.forget()
        self.began = time.time() - 1
        return SentLog()

    def forget(self) -> None:
        """Empty the tables, the queues and the stream."""
        with self.database() as connection, self.client() as client:
            connection.execute(f"TRUNCATE {TABLES}")
            client.delete(STREAM, *RECORDS, *LISTS)

    def _write_catalog(self) -> None:
        with self.database() as connection:
            connection.execute("INSERT INTO students (id) SELECT unnest(%s::bigint[])", [list(STUDENTS)])
            connection.execute("INSERT INTO courses (id) SELECT unnest(%s::bigint[])", [list(COURSES)])
