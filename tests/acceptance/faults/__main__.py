"""`make chaos`: the whole table. Prints the seed first; ends with 1 when anything was lost, duplicated or wrong."""
# ruff: noqa: T201 - it prints.

import argparse
import random
import signal
import sys
import time
from collections.abc import Sequence

from tests import programs
from tests.acceptance.faults.parallel import Parallel, work
from tests.acceptance.faults.scenario import Outcome, Scenario
from tests.acceptance.faults.table import HEAD, SCENARIOS, details, line
from worker.local.process import Child

PROCESSES = 3  # side by side: most of the time a scenario waits for a worker to start or for a message to expire


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeats the commands and the order of the faults of another run")
    parser.add_argument("--only", default="", help="scenarios whose name contains this; several with commas between")
    parser.add_argument("--short", action="store_true", help="a few injections each, as in `make test`")
    parser.add_argument("--processes", type=int, default=PROCESSES, help="scenarios side by side")
    parser.add_argument("--child", choices=("executes", "forks"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        if options.child == "forks":
            Child.launch = staticmethod(programs.launch)
        work(sys.stdin, sys.stdout)
        return 0
    words = [word.strip() for word in options.only.split(",")]
    scenarios = [scenario for scenario in SCENARIOS if any(word in scenario.name for word in words)]
    if not scenarios:
        parser.error(
            "there is no such scenario; the scenarios are:\n  " + "\n  ".join(scenario.name for scenario in SCENARIOS)
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    return _run(scenarios, seed=seed, short=options.short, processes=min(options.processes, len(scenarios)))


def _run(scenarios: Sequence[Scenario], *, seed: int, short: bool, processes: int) -> int:
    begin = time.monotonic()
    orders = [(scenario, scenario.short if short else scenario.full) for scenario in scenarios]
    orders = [(scenario, count) for scenario, count in orders if count]
    print(f"SEED={seed}\n\n{HEAD}", flush=True)
    with Parallel(
        orders, seed=seed, processes=processes, told=lambda outcome: print(line(outcome), flush=True)
    ) as running:
        outcomes = [running.outcome(scenario.name) for scenario, _ in orders]
    print(f"\n{_summary(outcomes)} in {time.monotonic() - begin:.0f} s, SEED={seed}")
    bad = [outcome for outcome in outcomes if not (outcome.good or outcome.skipped)]
    for outcome in bad:
        print(f"\n{details(outcome)}")
    return 1 if bad else 0


def _summary(outcomes: Sequence[Outcome]) -> str:
    ran = [outcome for outcome in outcomes if not outcome.control]
    numbers = {
        "injections": sum(outcome.injected for outcome in ran),
        "commands": sum(outcome.verdict.commands for outcome in ran),
        "lost": sum(len(outcome.verdict.lost) for outcome in ran),
        "duplicated": sum(len(outcome.verdict.duplicated) for outcome in ran),
        "wrong": sum(len(outcome.verdict.wrong) for outcome in ran),
        "scenarios skipped": sum(bool(outcome.skipped) for outcome in ran),
        "scenarios broken": sum(bool(outcome.broken) for outcome in outcomes),
    }
    return ", ".join(f"{number} {what}" for what, number in numbers.items())


if __name__ == "__main__":
    sys.exit(main())
