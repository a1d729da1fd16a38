"""Where a command's time goes in the worker: microseconds per command, by stage and size of batch."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any, Final

from benchmarks.backlog import Backlogs, Run, measure
from benchmarks.ground import Ground
from benchmarks.root import ROOT
from benchmarks.systems import ours
from benchmarks.workload import Enroll, enrolls

SIZES: Final = {1: 1_000, 50: 10_000, 500: 20_000}  # messages in a batch: how many commands
BULK: Final = 60_000  # commands in `apply` messages
STAGED: Final = ROOT / "benchmarks" / "staged.py"


@dataclass(frozen=True, slots=True)
class Profile:
    """One run. `stages`: of each the time by the wall and of the processor; `missing`: functions that have moved."""

    title: str
    run: Run
    stages: Mapping[str, tuple[float, float]]
    missing: Sequence[str]
    batches: int


def profiles(ground: Ground, *places: Path, scale: float = 1.0) -> list[list[dict[str, Any]]]:
    """Return, for each checkout of the project, a profile per size of batch, in microseconds per command.

    Several take turns, twice each, and change who goes first. The clocks themselves cost a few microseconds a command.
    """
    turns = (*places, *reversed(places)) if len(places) > 1 else places
    backlogs = {place: Backlogs() for place in places}  # each has what its own client sends
    found: dict[Path, list[dict[str, Any]]] = {place: [] for place in places}
    sizes: list[tuple[str, int, int, bool]] = [
        (f"batches of {size}", size, count, False) for size, count in SIZES.items()
    ]
    for title, size, count, bulk in [*sizes, ("apply messages of 1,000", 500, BULK, True)]:
        commands = enrolls(int(count * scale), seed=count)
        runs: dict[Path, list[Profile]] = {place: [] for place in places}
        for place in turns:
            run = profile(ground, backlogs[place], commands, title=title, size=size, bulk=bulk, place=place)
            runs[place].append(run)
        for place in places:
            found[place].append(_mean(runs[place]))
    return list(found.values())


def profile(
    ground: Ground,
    backlogs: Backlogs,
    commands: Sequence[Enroll],
    *,
    title: str,
    size: int = 500,
    bulk: bool = False,
    place: Path = ROOT,
) -> Profile:
    """Run one worker with clocks on it, whose batches have at most `size` messages. Raises WrongResultError.

    It is the worker of the checkout at `place`, under the clocks and the driver of this one.
    """
    out = ground.folder / "stages.json"
    out.unlink(missing_ok=True)
    # -P: the folder of the script, which is in this checkout, is not looked into for modules.
    command = ("python", "-P", str(STAGED), str(out), "worker", "--hostname=worker0@localhost")
    system = replace(ours(1, bulk=bulk, ENROLLMENT_BATCH_MESSAGES=str(size)), workers=(command,), place=place)
    run = measure(ground, system, ground.fresh(), commands, backlogs)
    found = json.loads(out.read_text())
    stages = {stage: (wall, cpu) for stage, (wall, cpu) in found["stages"].items()}
    return Profile(title, run, stages, found["missing"], found["batches"])


def _mean(runs: Sequence[Profile]) -> dict[str, Any]:
    """Return what goes into the result file: `rate` in commands/s, `stages` as in Profile."""
    stages = {
        stage: [round(mean(run.stages[stage][of] for run in runs), 2) for of in (0, 1)] for stage in runs[0].stages
    }
    rate = round(mean(run.run.rate for run in runs), 1)
    return {"title": runs[0].title, "rate": rate, "runs": len(runs), "stages": stages, "missing": runs[0].missing}
