"""A worker killed before every single network call between claim and acknowledgement, with strace."""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final

from tests.acceptance.faults.commands import Generator
from tests.acceptance.faults.producers import Sender
from tests.acceptance.faults.scenario import Run, Scenario, Skipped
from tests.acceptance.faults.waits import until
from worker.local.process import Child

CALLS: Final = ("sendto", "recvfrom")  # all that redis-py and libpq use; strace counts each by itself
ALL: Final = 1_000  # injections: more than there are points
EARLY: Final = 16  # points among which the short form chooses: every batch has as many
NEEDED: Final = "strace is not installed, or may not attach to processes here (Debian and Ubuntu: apt install strace)"


def _crash(messages: int) -> Callable[[Run], None]:
    """Return a fault that takes every point of a batch of `messages`, or a random few where fewer are wanted."""

    def inject(run: Run) -> None:
        if shutil.which("strace") is None:
            raise Skipped(NEEDED)
        for other in run.harness.workers[1:]:  # alone, so that the calls of one worker are all there are
            other.stop()
        try:
            if run.count < ALL:
                for _ in range(run.count):
                    run.injected += _killed_at(run, run.rng.choice(CALLS), run.rng.randint(1, EARLY), messages)
            else:
                for call in CALLS:
                    _every_point(run, call, messages)
        finally:
            for index in range(len(run.harness.workers)):
                run.harness.start_worker(index)

    return inject


def _every_point(run: Run, call: str, messages: int) -> None:
    """Go on until the worker is done with its messages before the point is reached."""
    for point in count(1):
        if not _killed_at(run, call, point, messages):
            return
        run.injected += 1


def _killed_at(run: Run, call: str, point: int, messages: int) -> bool:
    """Let the worker take these messages at once, and die before its `point`-th `call`; say whether it came to that."""
    harness, generator, sender = run.harness, Generator(run.rng), Sender(run.harness.redis.url, run.sent_log)
    victim, told = harness.workers[0], run.harness.told
    os.kill(victim.pid, signal.SIGSTOP)
    try:
        for _ in range(messages):
            sender.send(generator.good())
        with _strace(victim, call, point):
            os.kill(victim.pid, signal.SIGCONT)
            until(lambda: not victim.running or harness.told >= told + messages, 30)
            until(lambda: not victim.running or not harness.leftovers(), 1, soft=True)  # the acknowledgement comes last
    finally:
        victim.send(signal.SIGCONT)
        sender.close()
    if victim.running:
        return False
    harness.start_worker(0)
    harness.drain()
    return True


@contextmanager
def _strace(victim: Child, call: str, point: int) -> Iterator[None]:
    """Attach to a process, which is then killed at its `point`-th `call`, before that is made."""
    options = ["-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={point}"]
    process = subprocess.Popen(["strace", *options, "-p", str(victim.pid)], stderr=subprocess.DEVNULL)  # noqa: S607
    try:
        until(lambda: process.poll() is not None or _traced(victim.pid), 10)
        if process.poll() is not None:
            raise Skipped(NEEDED)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _traced(pid: int) -> bool:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.startswith("TracerPid:") and line.split()[1] != "0" for line in lines)


SCENARIOS: Sequence[Scenario] = [
    Scenario("killed before each network call, 1 message", ALL, 1, _crash(1), traffic=False, seconds=12),
    Scenario("killed before each network call, 5 messages", ALL, 1, _crash(5), traffic=False, seconds=12),
    Scenario("killed before each network call, 200 messages", ALL, 1, _crash(200), traffic=False, seconds=14),
]
