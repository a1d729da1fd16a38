"""Processes under measurement: started, stopped with all they forked, and what they used, as Linux counts it."""

import os
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from benchmarks.ground import Ground
from benchmarks.systems import System
from worker.local.process import Child

_PROC: Final = Path("/proc")
_STAT_PARENT, _STAT_TIMES = 1, slice(11, 15)  # after the name: parent; own time in user and system mode, and children's
STOPPING: Final = 10.0  # seconds the worker is given to end its batch


@contextmanager
def running(ground: Ground, system: System, url: str) -> Iterator[list[Child]]:
    """Run the workers of a system."""
    children = [
        Child(
            name=f"{system.key}-{number}",
            command=system.command(ground.folder.parent, words),
            log=ground.folder / f"{system.key}-{number}.log",
            env=system.environment(database_url=url, redis_url=ground.redis.url),
            cwd=system.cwd,
        )
        for number, words in enumerate(system.workers, 1)
    ]
    try:
        for child in children:
            child.log.write_bytes(b"")
            child.start()
        yield children
    finally:
        for child in children:
            if system.peer is None:
                child.send(signal.SIGTERM)
        for child in children:
            if system.peer is None:
                child.wait(STOPPING)
            with suppress(ProcessLookupError):  # what it forked is in its session
                os.killpg(child.pid, signal.SIGKILL)
            child.wait(None)


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the processor time used by these processes and all that descend from them; 0 where /proc is missing."""
    parents: dict[int, int] = {}
    times: dict[int, int] = {}
    for entry in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, fields = int(entry.parent.name), entry.read_text().rpartition(")")[2].split()
            parents[pid], times[pid] = int(fields[_STAT_PARENT]), sum(map(int, fields[_STAT_TIMES]))
    wanted = set(roots)
    while found := {pid for pid, parent in parents.items() if parent in wanted} - wanted:
        wanted |= found
    return sum(times.get(pid, 0) for pid in wanted) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int, name: str = "VmRSS") -> float:
    """Return how much memory a process holds (`VmHWM`: held at the most), in megabytes; 0 where /proc is missing."""
    with suppress(OSError):
        for line in (_PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) / 1024
    return 0.0
