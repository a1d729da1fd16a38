"""A worker whose clock is two hours ahead of everybody else's."""

import importlib.util
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.acceptance.faults.scenario import Run, Scenario, Skipped
from worker.local.process import Child

AHEAD = "+2h"
PLACES = ("/usr/lib/*/faketime/libfaketime.so.1", "/usr/lib/faketime/libfaketime.so.1")
NEEDED = "libfaketime is not installed (Debian and Ubuntu: apt install libfaketime; with a C compiler: pip)"


def _library() -> Path:
    spec = importlib.util.find_spec("libfaketime")  # found, not imported: importing it changes this process
    if spec is not None and spec.origin is not None:
        for found in Path(spec.origin).parent.glob("vendor/libfaketime/src/libfaketime.so.1"):
            return found
    for place in PLACES:
        for found in Path("/").glob(place.lstrip("/")):
            return found
    raise Skipped(NEEDED)


@contextmanager
def shifted(run: Run, by: str) -> Iterator[Child]:
    """Run a worker whose clock is wrong by this, beside the others. Raises Skipped."""
    if sys.platform != "linux":
        raise Skipped("LD_PRELOAD is of Linux")
    variables = {"LD_PRELOAD": str(_library()), "FAKETIME": by, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
    worker = run.harness.new_worker("ahead" if by.startswith("+") else "behind", variables=variables)
    try:
        worker.start()
        run.harness.until_ready(worker)
        yield worker
    finally:
        worker.kill()


def _clock_ahead(run: Run) -> None:
    for _ in range(run.count):
        with shifted(run, AHEAD) as fast:
            run.pause(1.5, 3)
            if run.rng.random() < 0.5:
                fast.stop()
            run.injected += 1


SCENARIOS: Sequence[Scenario] = [Scenario("a worker's clock two hours ahead", 5, 1, _clock_ahead, seconds=8)]
