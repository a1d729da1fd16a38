"""Child processes that end with their parent: each in a session of its own, stopped in steps, never left behind."""

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>; the other systems have no such call, there a killed parent leaves its children

StopSteps = Sequence[tuple[signal.Signals, float]]
"""Signals in the order they are tried, each with the seconds it is given; SIGKILL follows by itself."""


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a process runs as."""

    uid: int
    gid: int

    @classmethod
    def unprivileged(cls) -> Self | None:
        """Return `nobody` where this process is root, which some servers refuse to run as; else None, "as we are"."""
        if os.geteuid() != 0:
            return None
        nobody = pwd.getpwnam("nobody")
        return cls(nobody.pw_uid, nobody.pw_gid)

    def may_enter(self, path: Path) -> bool:
        """Say whether this account may search (a folder) or execute (a file) `path`: as the system sees it."""
        return run(["test", "-x", str(path)], account=self).returncode == 0


@dataclass(kw_only=True)
class Child:
    """A program that runs until it is stopped, or until the thread that started it ends, however that ends."""

    name: str
    command: Sequence[str]
    log: Path
    env: Mapping[str, str] | None = None
    cwd: Path | None = None
    account: Account | None = None
    stop_steps: StopSteps = ((signal.SIGTERM, 10.0),)
    death_signal: signal.Signals = signal.SIGKILL
    launch: ClassVar[Callable[..., subprocess.Popen[bytes]]] = subprocess.Popen
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False, repr=False)

    def start(self, *, pass_fds: Sequence[int] = ()) -> None:
        """Start it; what it prints is appended to the log. `pass_fds` stay open in it under their numbers."""
        if self.running:
            return
        with self.log.open("ab") as log:
            self._process = self.launch(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.cwd,
                pass_fds=pass_fds,
                start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops things in order
                preexec_fn=_follow_parent(self.death_signal),  # nothing else can do it before exec
                **_as(self.account),
            )

    @property
    def pid(self) -> int:
        """The process id, also after it has ended."""
        if self._process is None:
            raise ProcessLookupError(f"{self.name} was never started")
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.poll() is None

    @property
    def returncode(self) -> int | None:
        """What it ended with (a signal is negative); None while it runs and before it was started."""
        return None if self._process is None else self._process.poll()

    def stop(self) -> int | None:
        """Ask it to end, step by step ever more firmly; return what it ended with."""
        for number, seconds in self.stop_steps:
            self.send(number)
            if self.wait(seconds):
                break
        self.kill()
        return self.returncode

    def kill(self) -> None:
        """End it as `kill -9` does, without a word."""
        self.send(signal.SIGKILL)
        self.wait(None)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, unless it has ended."""
        if self._process is not None:
            self._process.send_signal(number)

    def wait(self, seconds: float | None) -> bool:
        """Wait until it ends, at most `seconds`; say whether it did."""
        try:
            if self._process is not None:
                self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def tail(self, lines: int = 20) -> str:
        """Return the last `lines` of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def run(
    command: Sequence[str],
    *,
    account: Account | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end under the same care, and return its result with stdout and stderr in one text."""
    return subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        cwd=cwd,
        preexec_fn=_follow_parent(signal.SIGKILL),
        **_as(account),
    )


def _follow_parent(death_signal: signal.Signals) -> Callable[[], None] | None:
    """Return what the child does between fork and exec, so that it gets `death_signal` when its parent has gone."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: between fork and exec the loader's lock may be held
    parent = os.getpid()

    def follow() -> None:
        prctl(PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:  # it went before we asked
            os._exit(1)

    return follow


def _as(account: Account | None) -> dict[str, Any]:
    """Return the arguments of `subprocess` that make a child run as `account`."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}
