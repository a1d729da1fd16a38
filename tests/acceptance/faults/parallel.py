"""Rows side by side: each lane is a process with servers and workers of its own; it takes row after row."""

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
from typing import IO, Self

from tests.acceptance.faults.harness import Arena
from tests.acceptance.faults.oracle import Verdict
from tests.acceptance.faults.scenario import Outcome, Row, run_row
from tests.acceptance.faults.table import row_named
from tests.root import ROOT
from worker.local.process import _follow_parent


def work(orders: Iterable[str], answers: IO[str]) -> None:
    """Run the rows that are ordered, a line each, and answer each with the line of its outcome."""
    signal.signal(signal.SIGTERM, _end)
    arena: Arena | None = None
    try:
        for order in orders:
            name, count, seed = json.loads(order)
            try:
                arena = arena or Arena().__enter__()
                outcome = run_row(arena, row_named(name), count, seed)
            except Exception:  # noqa: BLE001 - one row that cannot be run is that row's
                outcome = Outcome(name, broken=traceback.format_exc())
            if arena is not None and not outcome.good and not outcome.skipped:  # nothing of it is to spoil the next row
                outcome = replace(outcome, logs=str(arena.keep_logs(name)))
                arena.stop()
                arena = None
            answers.write(json.dumps(asdict(outcome)) + "\n")
            answers.flush()
    finally:
        if arena is not None:
            arena.stop()


def _end(*_: object) -> None:
    """End, but stop first what was started. Nobody who asks again may interrupt that."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(1)


class Lanes:
    """Runs rows in processes of their own; `outcome(name)` waits for one of them.

    Start it from a thread that lives on: the processes end with it.
    """

    def __init__(
        self, orders: Iterable[tuple[Row, int]], *, seed: int, lanes: int, told: Callable[[Outcome], None]
    ) -> None:
        self._seed = seed
        self._told = told
        self._waiting: queue.SimpleQueue[tuple[Row, int]] = queue.SimpleQueue()
        self._done: dict[str, Outcome] = {}
        self._ready: dict[str, threading.Event] = {}
        for row, count in sorted(orders, key=lambda order: -order[0].seconds * max(1, order[1])):
            self._ready[row.name] = threading.Event()
            self._waiting.put((row, count))
        self._lanes = lanes
        self._processes: list[subprocess.Popen[str]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        for _ in range(self._lanes):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.acceptance.faults", "--lane"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
                start_new_session=True,
                preexec_fn=_follow_parent(signal.SIGTERM),  # noqa: PLW1509 - nothing else can do it before exec
            )
            self._processes.append(process)
            thread = threading.Thread(target=self._drive, args=(process,), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        while error is not None and not self._waiting.empty():
            with suppress(queue.Empty):
                self._waiting.get_nowait()
        for process in self._processes:
            if error is not None:
                process.terminate()
        for thread in self._threads:
            thread.join(60)
        for process in self._processes:
            process.kill()
            process.wait()

    def outcome(self, name: str, timeout: float | None = None) -> Outcome:
        """Wait for the outcome of a row. Raises TimeoutError."""
        if not self._ready[name].wait(timeout):
            raise TimeoutError(f"The row {name!r} has not come to an end.")
        return self._done[name]

    def _drive(self, process: subprocess.Popen[str]) -> None:
        """Give a lane one row after the other, until none is left."""
        assert process.stdin is not None
        assert process.stdout is not None
        with process.stdin, process.stdout:
            while True:
                try:
                    row, count = self._waiting.get_nowait()
                except queue.Empty:
                    break
                answer = ""
                with suppress(OSError):
                    process.stdin.write(json.dumps([row.name, count, self._seed]) + "\n")
                    process.stdin.flush()
                    answer = process.stdout.readline()
                self._note(row.name, answer)
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
