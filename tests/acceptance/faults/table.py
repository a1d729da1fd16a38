"""All scenarios, and the table that is printed of what came of them."""

from collections.abc import Sequence
from typing import Final

from tests.acceptance.faults import (
    clock,
    control,
    crashpoints,
    failover,
    malformed,
    network,
    packets,
    process_faults,
    rabbitmq,
    relays,
    restore_faults,
    sentinel_faults,
    server_faults,
    waiting_faults,
)
from tests.acceptance.faults.scenario import GOALS, Outcome, Scenario

SCENARIOS: Final[Sequence[Scenario]] = [
    *process_faults.SCENARIOS,
    *network.SCENARIOS,
    *packets.SCENARIOS,
    *server_faults.SCENARIOS,
    *failover.SCENARIOS,
    *sentinel_faults.SCENARIOS,
    *crashpoints.SCENARIOS,
    *clock.SCENARIOS,
    *malformed.SCENARIOS,
    *relays.SCENARIOS,
    *waiting_faults.SCENARIOS,
    *restore_faults.SCENARIOS,
    *rabbitmq.SCENARIOS,
    *control.SCENARIOS,
]
SHORT: Final = [scenario for scenario in SCENARIOS if scenario.short]
WIDTH: Final = max(len(scenario.name) for scenario in SCENARIOS) + 1
HEAD: Final = (
    f"{'fault':{WIDTH}}{'injected':>9}{'commands':>10}{'lost':>6}{'dupl.':>6}{'wrong':>6}{'took':>6}  longest (goal), s"
)
SHOWN: Final = 8  # sentences of each sort that are printed of a scenario that failed


def scenario_named(name: str) -> Scenario:
    (found,) = [scenario for scenario in SCENARIOS if scenario.name == name]
    return found


def line(outcome: Outcome) -> str:
    """Return the line of one scenario."""
    if outcome.skipped or outcome.broken:
        return f"{outcome.name:{WIDTH}}  " + (f"skipped: {outcome.skipped}" if outcome.skipped else "could not be run")
    verdict = outcome.verdict
    counts = (len(verdict.lost), len(verdict.duplicated), len(verdict.wrong))
    seconds = [
        f"{what} {longest:.1f} ({GOALS[what]:.0f}){'' if longest <= GOALS[what] else ' MISSED'}"
        for what, longest in outcome.seconds.items()
    ]
    if outcome.control:
        seconds = ["has to lose some"]
    numbers = "".join(f"{count:6}" for count in counts)
    took = f"{outcome.took:6.0f}"
    return f"{outcome.name:{WIDTH}}{outcome.injected:9}{verdict.commands:10}{numbers}{took}  {', '.join(seconds)}"


def details(outcome: Outcome) -> str:
    """Return what is wrong with a scenario, in sentences; nothing where nothing is."""
    if outcome.good:
        return ""
    if outcome.broken:
        return f"{outcome.name}: {outcome.broken}{_logs(outcome)}"
    if outcome.control:
        return f"{outcome.name}: the stock worker lost nothing, so this harness may not see a loss."
    verdict = outcome.verdict
    sorts = {"lost": verdict.lost, "duplicated": verdict.duplicated, "wrong": verdict.wrong}
    sentences = [f"{sort}: {each[:1500]}" for sort, found in sorts.items() for each in found[:SHOWN]]
    return "\n  ".join([f"{outcome.name}:", *sentences]) + _logs(outcome)


def _logs(outcome: Outcome) -> str:
    return f"\n  The logs are in {outcome.logs}" if outcome.logs else ""
