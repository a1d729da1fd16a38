"""How long things take to start, beside the imports that they cannot do without."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Final

from benchmarks.backlog import Backlogs
from benchmarks.ground import Ground, wait
from benchmarks.processes import running
from benchmarks.root import ROOT
from benchmarks.systems import System
from benchmarks.workload import enrolls

IMPORTS_OF_HELP: Final = "import typer"
IMPORTS_OF_WORKER: Final = (
    "import celery.bin.celery, celery.apps.worker, kombu.transport.redis, redis, psycopg,"
    " sqlalchemy.dialects.postgresql.psycopg, pydantic, pydantic_settings, structlog, tenacity"
)
_PATIENCE: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class Starts:
    """Milliseconds, medians. A worker's: from its start to the event of a command that lay in the queue."""

    python: float
    help: float
    help_imports: float
    worker: float
    worker_imports: float
    plain_celery: float


def starts(ground: Ground, worker: System, plain: System, *, rounds: int) -> Starts:
    """Measure each in turn, `rounds` times; return the medians."""
    python = sys.executable
    enrollment = worker.command(ground.folder, ("enrollment", "--help"))
    found = [
        (
            _run([python, "-c", "pass"]),
            _run(enrollment),
            _run([python, "-c", IMPORTS_OF_HELP]),
            _first_event(ground, worker),
            _run([python, "-c", IMPORTS_OF_WORKER]),
            _first_event(ground, plain),
        )
        for _ in range(rounds)
    ]
    return Starts(*map(median, zip(*found, strict=True)))


def _run(command: Sequence[str]) -> float:
    begin = perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return 1000 * (perf_counter() - begin)


def _first_event(ground: Ground, system: System) -> float:
    url = ground.fresh()
    Backlogs().fill(ground, system, url, enrolls(1, seed=6))
    with ground.client() as client:
        begin = perf_counter()
        with running(ground, system, url):
            wait(lambda: client.xlen(system.stream) > 0, seconds=_PATIENCE, what=f"the start of {system.key}")
            return 1000 * (perf_counter() - begin)
