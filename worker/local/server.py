"""What PostgreSQL and Redis have in common here: a folder of their own, a free port, a start that is really theirs."""

import contextlib
import fcntl
import os
import random
import secrets
import socket
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from worker.local.errors import FolderInUse, NotStarted
from worker.local.process import Child

# Below the range from which systems take ports for outgoing connections, so that none takes ours while we are down;
# above the standard ports.
PORTS = range(20_000, 32_000)
PORT_ATTEMPTS = 5
START_TIMEOUT = 60.0  # seconds; recovery after a kill is part of a start
LOCK_TIMEOUT = 20.0  # seconds; a server whose parent was killed needs a moment to go
POLL = 0.02  # seconds


class Server(ABC):
    """A server on 127.0.0.1 with its data in a folder: `start`, `stop`, `kill`, `start` again on the same port."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        """Keep data, password, lock and log in `folder`, which is made when needed. Nothing is started yet."""
        self.folder = folder.absolute()
        self._port: int | None = None
        self._child: Child | None = None

    @property
    def port(self) -> int:
        """The port; chosen at the first start, kept afterwards."""
        if self._port is None:
            raise ProcessLookupError(f"{self.name} was never started")
        return self._port

    @property
    def pid(self) -> int:
        """The process id of the server, also after it has ended."""
        if self._child is None:
            raise ProcessLookupError(f"{self.name} was never started")
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._child is not None and self._child.running

    @property
    def log(self) -> Path:
        """What the server prints: this object's starts only."""
        return self.folder / "server.log"

    @property
    def password(self) -> str:
        """A password made for this folder: other users of this machine reach the port too."""
        path = self.folder / "password"
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_hex(16))
        return path.read_text()

    def start(self) -> Self:
        """Start it and return when it answers.

        Raises `LocalError` with a reason when it cannot. Call it from a thread that lives on: the server ends with the
        thread that started it.
        """
        if self.running:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        with _locked(self.folder) as lock:
            self._prepare()
            if self._child is None:
                self.log.write_bytes(b"")
            self._launch(lock)
        return self

    def stop(self) -> None:
        """Stop it cleanly; all connections are ended."""
        if self._child is not None:
            self._child.stop()

    def kill(self) -> None:
        """End it as `kill -9` does, and wait until the processes that it had started have noticed."""
        if self._child is not None:
            self._child.kill()
            with _locked(self.folder):  # they have it, too
                pass

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @abstractmethod
    def _prepare(self) -> None:
        """Make everything ready for a start; no process of an earlier run uses the folder any more."""

    @abstractmethod
    def _child_on(self, port: int) -> Child:
        """Return the process to start on `port`."""

    @abstractmethod
    def _answers(self, child: Child, port: int) -> bool:
        """Say whether the server that answers on `port` is `child`, and serves: a neighbour's would answer as well."""

    def _launch(self, lock: int) -> None:
        for attempt in range(PORT_ATTEMPTS):
            port = self._port or free_port()
            child = self._child_on(port)
            try:
                child.start(pass_fds=[lock])  # held by the server itself: it is free when all of its processes are gone
                ready = self._wait(child, port)
            except BaseException:
                child.kill()
                raise
            if ready:
                self._port, self._child = port, child
                return
            child.kill()
            taken = self._port is None and not is_free(port)  # somebody was quicker
            if not taken or attempt + 1 == PORT_ATTEMPTS:
                raise NotStarted(name=self.name, log=self.log, tail=child.tail())

    def _wait(self, child: Child, port: int) -> bool:
        deadline = time.monotonic() + START_TIMEOUT
        while child.running and time.monotonic() < deadline:
            if self._answers(child, port):
                return True
            time.sleep(POLL)
        return False


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on at this moment."""
    ports = random.SystemRandom()
    while not is_free(port := ports.choice(PORTS)):
        pass
    return port


def is_free(port: int) -> bool:
    """Say whether a server could listen on `port` of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are fading away do not matter
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the lock of `folder`, and give its descriptor."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + LOCK_TIMEOUT
        while not _try_lock(lock):
            if time.monotonic() > deadline:
                raise FolderInUse(folder=folder)
            time.sleep(POLL)
        yield lock
    finally:
        os.close(lock)


def _try_lock(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
