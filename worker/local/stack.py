"""The whole stack on this machine: PostgreSQL, Redis, migrations, workers, beat, gateway, Flower, in one folder."""

import os
import signal
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Self

from worker.heartbeats import asking
from worker.local.errors import NotReady, NotStarted
from worker.local.postgres import Postgres
from worker.local.process import Child
from worker.local.redis import Redis
from worker.local.server import POLL, Server, free_port, is_free
from worker.schema import upgrade

FOLDER = Path(".local")  # of the folder in which the command is called
DATABASE = "enrollment"
READY_TIMEOUT = 60.0  # seconds; a first start on a busy machine compiles every module
PING_TIMEOUT = 0.5  # seconds for a worker to answer one ping
STOP_TIMEOUT = 15.0  # seconds a worker is given to finish its batch
_SETTINGS = ("ENROLLMENT_", "CELERY_", "BROKER_URL")  # how variables begin that name servers
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
GATEWAY_PORT = 8000  # where it is free: an address that can be kept
WATCH = 0.2  # seconds between two looks at the children


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of this process for a child of ours, with `variables` on top.

    No settings of ours or of Celery come along: a local worker must not use the servers that this shell works with.
    """
    inherited = os.environ.items()  # noqa: TID251 - handed on, not read
    foreign = {name: value for name, value in inherited if not name.startswith(_SETTINGS)}
    return {**foreign, "PYTHONUNBUFFERED": "1", **variables}


class Stack:
    """Everything, started in order and stopped in the opposite order; nothing outlives the thread that started it.

        with Stack(workers=2, flower=True) as stack:
            print(stack.database_url, stack.broker_url, stack.flower_url)
            stack.workers[0].kill()          # as `kill -9`
            stack.start_worker(0)            # again, and wait until it answers
            ended = stack.wait()             # until Ctrl-C or SIGTERM (None), or a child that ended by itself

    Every child is a `Child` (`name`, `pid`, `log`, `running`, `kill()`, ...); PostgreSQL and Redis have the same verbs.
    """

    def __init__(
        self,
        folder: Path = FOLDER,
        *,
        workers: int = 1,
        beat: bool = True,
        flower: bool = False,
        gateway: Mapping[str, str] | None = None,
        durable: bool = True,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        """Keep all data and logs in `folder`; `variables` (`ENROLLMENT_…`) go to every child. Nothing is started.

        `gateway` are the variables of the gateway alone; there is none where they are None.
        """
        self.folder = folder.absolute()
        self.postgres = Postgres(self.folder / "postgres", durable=durable)
        self.redis = Redis(self.folder / "redis", durable=durable)
        self.workers: list[Child] = []
        self.beat: Child | None = None
        self.flower: Child | None = None
        self.flower_url: str | None = None
        self.gateway: Child | None = None
        self.gateway_url: str | None = None
        self._wanted = (workers, beat, flower, gateway)
        self._variables = dict(variables or {})

    @property
    def database_url(self) -> str:
        """The address of the stack's database."""
        return self.postgres.url_of(DATABASE)

    @property
    def broker_url(self) -> str:
        """The address of the broker, which holds the event stream as well."""
        return self.redis.url

    @property
    def variables(self) -> dict[str, str]:
        """The settings a process needs to take part: a producer, `psql`, one more worker."""
        return {
            "ENROLLMENT_DATABASE_URL": self.database_url,
            "ENROLLMENT_BROKER_URL": self.broker_url,
            **self._variables,
        }

    @property
    def children(self) -> list[Child]:
        """The processes started so far, besides the servers."""
        return [*self.workers, *(child for child in (self.beat, self.gateway, self.flower) if child is not None)]

    def start(self) -> Self:
        """Start everything, and return when all of it answers. Raises `LocalError`; nothing is left running then."""
        workers, beat, flower, gateway = self._wanted
        with ExitStack() as undo:
            undo.callback(self.stop)
            (self.folder / "log").mkdir(parents=True, exist_ok=True)
            self.start_servers()
            for index in range(workers):
                self.start_worker(index, wait=False)
            if beat:
                self._start_beat()
            if gateway is not None:
                self._start_gateway(gateway)
            for worker in self.workers:
                self._until(worker, self._pings)
            if flower:  # last: it looks for the workers once, when it starts
                self._start_flower()
            undo.pop_all()
        return self

    def start_servers(self) -> None:
        """Start PostgreSQL and Redis, and bring the database to the newest migration."""
        self.redis.start()
        self.postgres.start()
        self.postgres.create_database(DATABASE, exist_ok=True)
        upgrade(self.database_url)

    def start_worker(self, index: int, *, wait: bool = True) -> Child:
        """Start worker `index`, which may be a new one or one that has ended; wait until it answers."""
        if index < len(self.workers):
            worker = self.workers[index]
        else:
            name = f"worker{index + 1}"
            worker = self._celery(name, "worker", f"--hostname={_node(name)}")
            self.workers.append(worker)
        worker.start()
        if wait:
            self._until(worker, self._pings)
        return worker

    def wait(self) -> str | None:
        """Wait for Ctrl-C or SIGTERM and return None, or return the name of the first process that ended by itself.

        Call it from the main thread: the signals are watched while it waits.
        """
        stopped: list[int] = []
        before = {number: signal.signal(number, lambda it, _: stopped.append(it)) for number in STOP_SIGNALS}
        try:
            while not stopped:
                ended = next(self._ended(), None)
                if ended is not None:
                    return ended
                time.sleep(WATCH)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        return None

    def stop(self) -> None:
        """Stop everything that runs: the Celery processes together, then what stores."""
        if self.flower is not None:
            self.flower.kill()  # it keeps nothing, and asked to end it waits a quarter of a minute for its own threads
        for child in self.children:
            child.send(signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT
        for child in self.children:
            if not child.wait(max(0.0, deadline - time.monotonic())):
                child.kill()
        self.redis.stop()
        self.postgres.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def _start_beat(self) -> None:
        self.beat = self._celery("beat", "beat", "--pidfile=")  # none: a stale one would stop it
        self.beat.start()

    def _start_gateway(self, variables: Mapping[str, str]) -> None:
        port = GATEWAY_PORT if is_free(GATEWAY_PORT) else free_port()
        self.gateway_url = f"http://127.0.0.1:{port}"
        command = ["-c", "from worker.cli import main; main()", "gateway", "--host=127.0.0.1", f"--port={port}"]
        self.gateway = self._child("gateway", *command, variables=variables)
        self.gateway.start()
        self._until(self.gateway, lambda _: self._answers(f"{self.gateway_url}/healthz"))

    def _start_flower(self) -> None:
        port = free_port()
        self.flower_url = f"http://127.0.0.1:{port}"
        self.flower = self._celery("flower", "flower", "--address=127.0.0.1", f"--port={port}", "--read_only=True")
        self.flower.start()
        self._until(self.flower, lambda _: self._answers(f"{self.flower_url}/healthcheck"))

    def _celery(self, name: str, *arguments: str) -> Child:
        return self._child(name, "-m", "celery", "-A", "worker", *arguments)

    def _child(self, name: str, *arguments: str, variables: Mapping[str, str] | None = None) -> Child:
        log = self.folder / "log" / f"{name}.log"
        log.write_bytes(b"")
        return Child(
            name=name,
            command=[sys.executable, *arguments],
            log=log,
            env=environment({**self.variables, **(variables or {})}),
            cwd=self.folder,
        )

    def _until(self, child: Child, ready: Callable[[Child], bool]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT
        while not ready(child):
            if not child.running:
                raise NotStarted(name=child.name, log=child.log, tail=child.tail())
            if time.monotonic() > deadline:
                raise NotReady(name=child.name, seconds=READY_TIMEOUT, log=child.log, tail=child.tail())
            time.sleep(POLL)

    def _pings(self, worker: Child) -> bool:
        app = asking("stack", self.broker_url)
        with app.connection_for_write() as connection:
            return bool(app.control.ping([_node(worker.name)], PING_TIMEOUT, connection=connection, limit=1))

    def _answers(self, url: str) -> bool:
        try:
            with urllib.request.urlopen(url, timeout=PING_TIMEOUT) as answer:  # noqa: S310
                return bool(answer.status == HTTPStatus.OK)
        except OSError:
            return False

    def _ended(self) -> Iterator[str]:
        parts: list[Child | Server] = [*self.children, self.redis, self.postgres]
        for part in parts:
            if not part.running:
                yield part.name


def _node(name: str) -> str:
    """Return the name a worker is addressed by; there is one machine, so it need not be named."""
    return f"{name}@localhost"
