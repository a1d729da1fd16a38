"""Where a command's time goes in the worker: microseconds per command, by stage and size of batch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from benchmarks.backlog import Backlogs, Run, measure
from benchmarks.ground import Ground
from benchmarks.systems import ours
from benchmarks.workload import Enroll, enrolls

SIZES: Final = {1: 2_000, 50: 10_000, 500: 20_000}  # messages in a batch: how many commands
BULK: Final = 60_000  # commands in `apply` messages


@dataclass(frozen=True, slots=True)
class Profile:
    """One run. `stages`: of each the time by the wall and of the processor; `missing`: functions that have moved."""

    title: str
    run: Run
    stages: Mapping[str, tuple[float, float]]
    missing: Sequence[str]
    batches: int

    def as_json(self) -> dict[str, Any]:
        return {"title": self.title, "rate": self.run.rate, "stages": self.stages, "missing": self.missing}


def profiles(ground: Ground, backlogs: Backlogs, *, scale: float = 1.0) -> list[Profile]:
    """Return a profile per size of batch; the clocks themselves cost a few microseconds per command."""
    found = [
        profile(ground, backlogs, enrolls(int(count * scale), seed=count), title=f"batches of {size}", size=size)
        for size, count in SIZES.items()
    ]
    bulk = enrolls(int(BULK * scale), seed=BULK)
    return [*found, profile(ground, backlogs, bulk, title="apply messages of 1,000", bulk=True)]


def profile(
    ground: Ground,
    backlogs: Backlogs,
    commands: Sequence[Enroll],
    *,
    title: str,
    size: int = 500,
    bulk: bool = False,
) -> Profile:
    """Run one worker with clocks on it, whose batches have at most `size` messages. Raises WrongResultError."""
    out = ground.folder / "stages.json"
    out.unlink(missing_ok=True)
    command = ("python", "-m", "benchmarks.staged", str(out), "worker", "--hostname=worker0@localhost")
    system = replace(ours(1, bulk=bulk, ENROLLMENT_BATCH_MESSAGES=str(size)), workers=(command,))
    run = measure(ground, system, ground.fresh(), commands, backlogs)
    found = json.loads(out.read_text())
    stages = {stage: (wall, cpu) for stage, (wall, cpu) in found["stages"].items()}
    return Profile(title, run, stages, found["missing"], found["batches"])
