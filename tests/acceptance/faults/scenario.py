"""A scenario of the table: a fault, how often it is injected, and what was measured while it was."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.acceptance.faults.harness import VISIBILITY_TIMEOUT, Harness
from tests.acceptance.faults.oracle import Verdict, judge
from tests.acceptance.faults.producers import Traffic
from tests.acceptance.faults.sent_log import SentLog
from tests.acceptance.faults.waits import until

WARM: Final = 10  # events before the first injection
PATIENCE: Final = 60.0  # seconds in which work must go on, whatever the goal

# What is measured, and its goal in seconds.
GOALS: Final = {
    "redelivered": VISIBILITY_TIMEOUT + 5.0,
    "goes on": 5.0,
    "others go on": 5.0,
    "healed": 60.0,
    "shutdown": 10.0,
}


class Skipped(Exception):
    """The scenario cannot run on this machine; the message says why, and what to install."""


@dataclass
class Run:
    """One scenario under way: what its fault may use."""

    harness: Harness
    sent_log: SentLog
    rng: random.Random
    count: int  # injections
    seconds: dict[str, list[float]] = field(default_factory=dict)
    injected: int = 0
    wrong: list[str] = field(default_factory=list)  # what the fault itself saw
    control: Verdict | None = None  # set by the scenarios that run a stock worker: what that lost

    def traffic(self, seed: int) -> Traffic:
        """Return producers that keep sending."""
        return Traffic(lambda: self.harness.new_sender(self.sent_log), seed)

    def pause(self, least: float = 0.05, most: float = 0.6) -> None:
        time.sleep(self.rng.uniform(least, most))

    def fork(self) -> random.Random:
        """Return a source of chance for another thread."""
        return random.Random(self.rng.random())  # noqa: S311 - it is to be repeatable

    def measure(self, what: str, seconds: float) -> None:
        self.seconds.setdefault(what, []).append(seconds)

    def until_work_goes_on(self, what: str = "goes on") -> None:
        """Measure the time from now to the next event."""
        begin, told = time.monotonic(), self.harness.told
        until(lambda: self.harness.told > told, PATIENCE, soft=True)
        self.measure(what, time.monotonic() - begin)

    def until_redelivered(self, tags: set[str], begin: float) -> None:
        """Measure the time from `begin` until none of these messages is held any more."""
        held = tags & self.harness.in_hand
        if held:
            until(lambda: not held & self.harness.in_hand, PATIENCE, soft=True)
            self.measure("redelivered", time.monotonic() - begin)


@dataclass(frozen=True)
class Scenario:
    """A fault by its name. `inject` is called once and injects `run.count` times."""

    name: str
    full: int
    short: int
    inject: Callable[[Run], None]
    traffic: bool = True
    seconds: float = 10.0  # about how long the short form takes, to spread the scenarios
    harness: Callable[[], Harness] = Harness  # what it needs; the same one is used again


@dataclass(frozen=True)
class Outcome:
    """What came of a scenario."""

    name: str
    injected: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    control: bool = False  # a stock worker ran: it has to lose commands
    seconds: dict[str, float] = field(default_factory=dict)  # the longest of each that was measured
    took: float = 0.0
    skipped: str = ""
    broken: str = ""  # the harness failed: nothing is known
    logs: str = ""  # where they are, of a scenario that is not good

    @property
    def good(self) -> bool:
        if self.control:
            return bool(self.verdict.lost)
        return self.verdict.good and not self.broken


def run_scenario(harness: Harness, scenario: Scenario, count: int, seed: int) -> Outcome:
    """Keep sending, inject the fault, wait until all is done, and judge."""
    begin = time.monotonic()
    rng = random.Random(f"{seed} {scenario.name}")  # noqa: S311 - it is to be repeatable
    run = Run(harness, harness.reset(), rng, count)
    try:
        if scenario.traffic:
            with run.traffic(seed):
                until(lambda: harness.told >= WARM, PATIENCE)
                scenario.inject(run)
                harness.revive()
                run.pause()
        else:
            scenario.inject(run)
            harness.revive()
    except Skipped as reason:
        return Outcome(scenario.name, skipped=str(reason))
    finally:
        for proxy in harness.proxies.values():
            proxy.heal()
    if run.control is not None:
        return Outcome(scenario.name, run.injected, run.control, control=True, took=time.monotonic() - begin)
    harness.drain()
    harness.revive()
    verdict = judge(run.sent_log, harness.seen())
    verdict.wrong += run.wrong
    longest = {what: max(seconds) for what, seconds in run.seconds.items()}
    return Outcome(scenario.name, run.injected, verdict, seconds=longest, took=time.monotonic() - begin)
