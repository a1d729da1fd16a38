"""Proof that a worker takes and finishes work: a file that it renews, and systemd's watchdog.

Each process has a file of its own, `<pid>`, in a folder that only its user can enter. It is renewed, once a second at
most, by what cannot happen in a worker that has stopped to work: the broker answered a claim over every queue that the
worker is to consume, a batch was finished, or a batch under way called in while it waits for a server. Nothing renews
it by the clock alone. After some batches in a row have failed, claims prove nothing until one is finished.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir
from time import monotonic, time
from typing import Final, Literal

from worker import metrics

STALE: Final = 30.0  # seconds without progress after which a worker is not alive; a batch takes far less between signs
EVERY: Final = 1.0  # seconds between two renewals
FAILURES: Final = 3  # batches that fail in a row: the worker takes work and finishes none

State = Literal["starting", "taking", "applying", "waiting for the broker"]
_AT_WORK: Final = {"taking", "applying"}  # each batch goes from one to the other and back


@dataclass(frozen=True, slots=True)
class Sign:
    """What one worker process last said of itself. `age`: seconds ago; `failures`: batches in a row that failed."""

    pid: int
    node: str
    state: State
    age: float
    failures: int
    ready: bool  # it has taken messages, or found none, since it started


class Liveness:
    """The signs of life of this process."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._node = ""
        self._notify: str | None = None
        self._failures = 0
        self._ready = False
        self._last = -EVERY  # the monotonic clock may begin at 0
        self._said: State = "starting"

    def start(self, node: str, *, notify: str | None = None) -> None:
        """Begin to give signs, also to systemd's socket `notify`; in each process after the fork."""
        self._node, self._notify = node, notify
        self._folder = self._folder or folder_of_user()
        _discard_dead(self._folder)
        self._write("starting")

    def stop(self) -> None:
        """End in order: there is nothing to be alive any more."""
        if self._folder is not None and self._node:
            (self._folder / str(os.getpid())).unlink(missing_ok=True)
            self._tell("STOPPING=1")

    def taking(self) -> None:
        """Note that the broker answered a claim on every queue."""
        if self._failures >= FAILURES:
            return
        if not self._ready:
            self._ready, self._last = True, -EVERY  # to be written at once
            self._tell("READY=1")
        self._progress("taking")

    def applying(self) -> None:
        """Note that a batch under way goes on; it may be waiting for a server."""
        if self._failures < FAILURES:
            self._progress("applying")

    def finished(self) -> None:
        """Note that a batch is done."""
        self._failures = 0
        self._progress("applying")

    def failed(self) -> None:
        """Note that a batch, or a dead letter, could not be kept and will come again."""
        self._failures += 1

    def waiting(self) -> None:
        """Note that work goes on as soon as the broker is there again."""
        self._progress("waiting for the broker")

    def _progress(self, state: State) -> None:
        now = monotonic()
        goes_on = {state, self._said} <= _AT_WORK or state == self._said  # else somebody may wait to hear it
        if now - self._last >= EVERY or not goes_on:
            self._last, self._said = now, state
            metrics.progressed()
            self._tell("WATCHDOG=1")
            self._write(state)

    def _write(self, state: State) -> None:
        if self._folder is None or not self._node:
            return  # no worker: a test, or the gateway
        said = {"node": self._node, "state": state, "failures": self._failures, "ready": self._ready}
        path = self._folder / str(os.getpid())
        new = path.with_suffix(".new")
        try:
            new.write_text(json.dumps(said), encoding="utf-8")
            new.replace(path)
        except OSError:  # a full disk stops no commands; that the file gets old tells of it
            return

    def _tell(self, message: str) -> None:
        if self._notify:
            notify(self._notify, message)


process: Final = Liveness()


def folder_of_user() -> Path:
    """Return the folder of the signs, made where it is missing. Raises OSError where it belongs to somebody else."""
    folder = Path(gettempdir()) / f"enrollment-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(13, "The folder belongs to another user; set TMPDIR", str(folder))
    return folder


def signs(folder: Path | None = None) -> list[Sign]:
    """Return the last sign of each worker process of this user that is running."""
    return [sign for path in _files(folder or folder_of_user()) if (sign := _read(path)) is not None]


def notify(address: str, message: str) -> None:
    """Tell systemd, as sd_notify(3) does it: one datagram. What is not received ends with its watchdog."""
    place = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client, suppress(OSError):
        client.settimeout(0)
        client.sendto(message.encode(), place)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.iterdir() if path.name.isdecimal() and _runs(int(path.name)))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _discard_dead(folder: Path) -> None:
    for path in folder.iterdir():
        if path.stem.isdecimal() and not _runs(int(path.stem)):
            path.unlink(missing_ok=True)


def _read(path: Path) -> Sign | None:
    try:
        age = max(0.0, time() - path.stat().st_mtime)
        said = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None  # it ended meanwhile
    return Sign(int(path.name), said["node"], said["state"], age, said["failures"], said["ready"])
