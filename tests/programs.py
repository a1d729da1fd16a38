"""Python programs that tests start, by fork (tests/forked.py): an exec costs seconds of processor time, for imports."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import pytest

from tests.root import ROOT
from worker.local.process import Child

BIN = Path(sys.executable).parent
SCRIPTS = ("alembic", "celery", "enrollment")


class Forked:
    """A process that was forked, with what `Child` needs of `subprocess.Popen`."""

    def __init__(self, source: "Source", pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._source = source
        self._lock = threading.Lock()
        self._descriptor = os.pidfd_open(pid)

    def __del__(self) -> None:
        os.close(self._descriptor)

    def poll(self) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if not select.select([self._descriptor], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
        with self._lock:  # it can be asked for once
            if self.returncode is None:
                self.returncode = self._source.ask({"ended": self.pid})
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)


class Source:
    """The process that is forked. It ends with this one, and what was forked ends with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.forked", str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
            )

    def close(self) -> None:
        """End it, and with it all that was forked."""
        self._socket.close()
        self._process.wait()

    def ask(self, question: Mapping[str, Any], descriptors: Sequence[int] = ()) -> int:
        """Return the number that is the answer."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(question).encode()], descriptors)
            return int(self._socket.recv(64))


@pytest.fixture(scope="session", autouse=True)
def forked() -> Iterator[None]:
    """Let programs be forked while the tests run."""
    Child.launch = staticmethod(launch)
    yield
    Child.launch = subprocess.Popen
    if source.cache_info().currsize:
        source().close()


@cache
def source() -> Source:
    """Return the process of these tests that is forked."""
    return Source()


def launch(
    command: Sequence[str],
    *,
    stdout: IO[bytes],
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    **options: Any,
) -> Any:
    """Start a program as `Child` does: by fork, if it is one of this Python that needs nothing but its variables."""
    variables = dict(os.environ if env is None else env)
    differ = [name for name, _ in variables.items() ^ os.environ.items() if name.startswith(("LD_", "PYTHON"))]
    python, script = command[0] == sys.executable and command[1] in ("-m", "-c"), Path(command[0])
    ours = python or (script.parent == BIN and script.name in SCRIPTS)
    if not ours or differ or "user" in options or sys.platform != "linux":
        return subprocess.Popen(command, stdout=stdout, env=env, cwd=cwd, pass_fds=pass_fds, **options)
    question = {"command": list(command), "env": variables, "cwd": str(cwd or Path.cwd()), "fds": list(pass_fds)}
    return Forked(source(), source().ask(question, [stdout.fileno(), *pass_fds]))
