"""A row of the table: a fault, how often it is injected, and what was measured while it was."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tests.acceptance.faults.harness import VISIBILITY_TIMEOUT, Arena, until
from tests.acceptance.faults.oracle import Verdict, judge
from tests.acceptance.faults.producers import Traffic
from tests.acceptance.faults.sent_log import Book

WARM: Final = 10  # events before the first injection
PATIENCE: Final = 60.0  # seconds in which work must go on, whatever the goal

# What is measured, and its goal in seconds.
GOALS: Final = {"redelivered": VISIBILITY_TIMEOUT + 5.0, "goes on": 5.0, "healed": 60.0, "shutdown": 10.0}


class Skipped(Exception):
    """The row cannot run on this machine; the message says why, and what to install."""


@dataclass
class Run:
    """One row under way: what its fault may use."""

    arena: Arena
    book: Book
    rng: random.Random
    count: int  # injections
    seconds: dict[str, list[float]] = field(default_factory=dict)
    injected: int = 0
    control: Verdict | None = None  # set by the rows that run a stock worker: what that lost

    def pause(self, least: float = 0.05, most: float = 0.6) -> None:
        time.sleep(self.rng.uniform(least, most))

    def fork(self) -> random.Random:
        """Return a source of chance for another thread."""
        return random.Random(self.rng.random())  # noqa: S311 - it is to be repeatable

    def measure(self, what: str, seconds: float) -> None:
        self.seconds.setdefault(what, []).append(seconds)

    def until_work_goes_on(self, what: str = "goes on") -> None:
        """Measure the time from now to the next event."""
        begin, told = time.monotonic(), self.arena.told
        until(lambda: self.arena.told > told, PATIENCE, soft=True)
        self.measure(what, time.monotonic() - begin)

    def until_redelivered(self, tags: set[str], begin: float) -> None:
        """Measure the time from `begin` until none of these messages is held any more."""
        held = tags & self.arena.in_hand
        if held:
            until(lambda: not held & self.arena.in_hand, PATIENCE, soft=True)
            self.measure("redelivered", time.monotonic() - begin)


@dataclass(frozen=True)
class Row:
    """A fault by its name. `inject` is called once and injects `run.count` times."""

    name: str
    full: int
    short: int
    inject: Callable[[Run], None]
    traffic: bool = True
    seconds: float = 10.0  # about how long the short form takes, to spread the rows


@dataclass(frozen=True)
class Outcome:
    """What came of a row."""

    name: str
    injected: int = 0
    verdict: Verdict = field(default_factory=Verdict)
    control: bool = False  # a stock worker ran: it has to lose commands
    seconds: dict[str, float] = field(default_factory=dict)  # the longest of each that was measured
    took: float = 0.0
    skipped: str = ""
    broken: str = ""  # the harness failed: nothing is known
    logs: str = ""  # where they are, of a row that is not good

    @property
    def good(self) -> bool:
        if self.control:
            return bool(self.verdict.lost)
        return self.verdict.good and not self.broken


def run_row(arena: Arena, row: Row, count: int, seed: int) -> Outcome:
    """Keep sending, inject the fault, wait until all is done, and judge."""
    begin = time.monotonic()
    rng = random.Random(f"{seed} {row.name}")  # noqa: S311 - it is to be repeatable
    run = Run(arena, arena.reset(), rng, count)
    try:
        if row.traffic:
            with Traffic(arena.redis.url, run.book, seed):
                until(lambda: arena.told >= WARM, PATIENCE)
                row.inject(run)
                arena.revive()
                run.pause()
        else:
            row.inject(run)
            arena.revive()
    except Skipped as reason:
        return Outcome(row.name, skipped=str(reason))
    finally:
        for proxy in arena.proxies.values():
            proxy.heal()
    if run.control is not None:
        return Outcome(row.name, run.injected, run.control, control=True, took=time.monotonic() - begin)
    arena.drain()
    arena.revive()
    verdict = judge(run.book, arena.seen())
    longest = {what: max(seconds) for what, seconds in run.seconds.items()}
    return Outcome(row.name, run.injected, verdict, seconds=longest, took=time.monotonic() - begin)
