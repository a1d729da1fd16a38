"""Scenarios side by side: each process has servers and workers of its own, and takes scenario after scenario."""

import json
import queue
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, replace
from types import TracebackType
from typing import IO, Literal, Self

from tests.acceptance.faults.harness import Harness
from tests.acceptance.faults.oracle import Verdict
from tests.acceptance.faults.scenario import Outcome, Scenario, Skipped, run_scenario
from tests.acceptance.faults.table import scenario_named
from tests.root import ROOT
from worker.local.process import _follow_parent


def work(orders: Iterable[str], answers: IO[str]) -> None:
    """Run the scenarios that are ordered, a line each, and answer each with the line of its outcome."""
    signal.signal(signal.SIGTERM, _end)
    harness: Harness | None = None
    try:
        for order in orders:
            name, count, seed = json.loads(order)
            scenario = scenario_named(name)
            if harness is not None and type(harness) is not scenario.harness:
                harness.stop()
                harness = None
            try:
                harness = harness or scenario.harness().__enter__()
                outcome = run_scenario(harness, scenario, count, seed)
            except Skipped as reason:
                outcome = Outcome(name, skipped=str(reason))
            except Exception:  # noqa: BLE001 - one scenario that cannot be run is that scenario's
                outcome = Outcome(name, broken=traceback.format_exc())
            if (
                harness is not None and not outcome.good and not outcome.skipped
            ):  # nothing of it is to spoil the next scenario
                outcome = replace(outcome, logs=str(harness.keep_logs(name)))
                harness.stop()
                harness = None
            answers.write(json.dumps(asdict(outcome)) + "\n")
            answers.flush()
    finally:
        if harness is not None:
            harness.stop()


def _end(*_: object) -> None:
    """End, but stop first what was started. Nobody who asks again may interrupt that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


class Parallel:
    """Runs scenarios in processes of their own; `outcome(name)` waits for one of them.

    Start it from a thread that lives on: the processes end with it.
    """

    def __init__(
        self,
        orders: Iterable[tuple[Scenario, int]],
        *,
        seed: int,
        processes: int,
        told: Callable[[Outcome], None],
        starts: Literal["executes", "forks"] = "executes",
    ) -> None:
        """Tell each outcome when it is there. Where it has to be quick, programs are forked (tests/programs.py)."""
        self._seed = seed
        self._starts = starts
        self._told = told
        self._waiting: queue.SimpleQueue[tuple[Scenario, int]] = queue.SimpleQueue()
        self._with_servers: queue.SimpleQueue[tuple[Scenario, int]] = queue.SimpleQueue()  # more of them: one process
        self._done: dict[str, Outcome] = {}
        self._ready: dict[str, threading.Event] = {}
        for scenario, count in sorted(orders, key=lambda order: -order[0].seconds * max(1, order[1])):
            self._ready[scenario.name] = threading.Event()
            usual = scenario.harness is Harness
            (self._waiting if usual else self._with_servers).put((scenario, count))
        self._count = processes
        self._processes: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for number in range(self._count):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.acceptance.faults", f"--child={self._starts}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=_follow_parent(signal.SIGTERM),  # noqa: PLW1509 - nothing else can do it before exec
            )
            self._processes.append(process)
            thread = threading.Thread(target=self._drive, args=(process, number == 0), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        while error is not None and self._next(with_servers=True):
            pass
        for process in self._processes:
            if error is not None:
                process.terminate()
        for thread in self._threads:
            thread.join(60)
        for process in self._processes:
            process.kill()
            process.wait()

    def outcome(self, name: str, timeout: float | None = None) -> Outcome:
        """Wait for the outcome of a scenario. Raises TimeoutError."""
        if not self._ready[name].wait(timeout):
            raise TimeoutError(f"The scenario {name!r} has not come to an end.")
        return self._done[name]

    def _next(self, *, with_servers: bool) -> tuple[Scenario, int] | None:
        for each in [self._with_servers, self._waiting] if with_servers else [self._waiting]:
            with suppress(queue.Empty):
                return each.get_nowait()
        return None

    def _drive(self, process: subprocess.Popen[str], with_servers: bool) -> None:  # noqa: FBT001
        """Give a process one scenario after the other, until none is left."""
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            while order := self._next(with_servers=with_servers):
                scenario, count = order
                answer = ""
                with suppress(OSError):
                    process.stdin.write(json.dumps([scenario.name, count, self._seed]) + "\n")
                    process.stdin.flush()
                    answer = process.stdout.readline()
                self._note(scenario.name, answer)
        process.wait()

    def _note(self, name: str, answer: str) -> None:
        if answer:
            fields = json.loads(answer)
            outcome = Outcome(**{**fields, "verdict": Verdict(**fields["verdict"])})
        else:
            outcome = Outcome(name, broken="its process ended")
        self._done[name] = outcome
        self._ready[name].set()
        self._told(outcome)
