"""Python programs that tests start, by fork (tests/forked.py): an exec costs seconds of processor time, for imports.

So it is with `subprocess`, too. A test that asks for what an exec is like has the fixture `executed`.
"""

import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import pytest

from tests.root import ROOT
from worker.local.process import Child

BIN = Path(sys.executable).parent
SCRIPTS = ("alembic", "celery", "enrollment")
EXECUTED = subprocess.Popen


class Program(subprocess.Popen[Any]):
    """A process that is forked, if it is a program of this Python that needs nothing but its variables."""

    _descriptor: int | None = None  # of a process that was forked

    def __init__(self, command: Any, *, as_child: bool = False, **options: Any) -> None:
        """Start it; where it is forked, it does `as_child` what `Child` has its processes do before they begin."""
        self._forks = _can_be_forked(command, options, as_child=as_child)
        self._lock = threading.Lock()
        super().__init__(command, **options)

    def __del__(self) -> None:
        super().__del__()
        if self._descriptor is not None:
            os.close(self._descriptor)

    def _execute_child(self, *given: Any) -> None:
        if not self._forks:
            super()._execute_child(*given)  # type: ignore[misc]  # which is not in its types
            return
        command, _, _, _, pass_fds, cwd, env = given[:7]
        stdin, _, _, stdout, _, stderr = pipes = given[10:16]
        variables = dict(os.environ if env is None else env)
        question = {"command": [*map(str, command)], "env": variables, "cwd": str(cwd or Path.cwd())}
        with Path(os.devnull).open("rb") as nothing:
            standard = [nothing.fileno() if stdin == -1 else stdin, 1 if stdout == -1 else stdout]
            standard.append(2 if stderr == -1 else stderr)
            self._source = source()
            self.pid = self._source.ask({**question, "fds": list(pass_fds)}, [*standard, *pass_fds])
        self._child_created = True
        self._descriptor = os.pidfd_open(self.pid)
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]  # as above

    def _internal_poll(self, *given: Any, **more: Any) -> int | None:
        if self._descriptor is None:
            return cast("int | None", super()._internal_poll(*given, **more))  # type: ignore[misc]  # as above
        with suppress(subprocess.TimeoutExpired):
            self._wait(0)
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self._descriptor is None:
            return cast("int", super()._wait(timeout))  # type: ignore[misc]  # as above
        if not select.select([self._descriptor], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        with self._lock:  # it can be asked for once
            if self.returncode is None:
                self.returncode = self._source.ask({"ended": self.pid})
        return self.returncode


launch = partial(Program, as_child=True)


class Source:
    """The process that is forked. It ends with this one, and what was forked ends with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [sys.executable, "-m", "tests.forked", str(theirs.fileno())]
            self._process = EXECUTED(
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
    subprocess.Popen = Program  # type: ignore[assignment, misc]
    yield
    Child.launch = subprocess.Popen = EXECUTED  # type: ignore[misc]
    if source.cache_info().currsize:
        source().close()


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start programs as outside of tests."""
    monkeypatch.setattr(Child, "launch", EXECUTED)
    monkeypatch.setattr(subprocess, "Popen", EXECUTED)


@cache
def source() -> Source:
    """Return the process of these tests that is forked."""
    return Source()


def _can_be_forked(command: Any, options: Mapping[str, Any], *, as_child: bool) -> bool:
    if isinstance(command, str | Path) or sys.platform != "linux":
        return False
    program, first = str(command[0]), str(command[1]) if len(command) > 1 else ""
    python = program == sys.executable and (first in ("-m", "-c") or first.endswith(".py"))
    if not python and not (Path(program).parent == BIN and Path(program).name in SCRIPTS):
        return False
    variables = os.environ if options.get("env") is None else options["env"]
    differ = {name for name, _ in dict(variables).items() ^ os.environ.items()}
    needs = {name for name, value in options.items() if value is not None} & {"user", "preexec_fn"}
    return needs <= ({"preexec_fn"} if as_child else set()) and not any(
        name.startswith(("LD_", "PYTHON")) for name in differ
    )
