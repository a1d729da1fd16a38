"""The worker with a clock on its functions: `python -m benchmarks.staged OUT.json worker …` for `celery -A worker …`.

The clocks are put on from outside; the product knows nothing of them. With the folder of an earlier commit first on
PYTHONPATH, and called by its path, it puts them on the worker there.
"""

import functools
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns, thread_time_ns
from typing import Any, Final

WHOLE: Final = "the rest of a batch"  # it is in no other stage but the loop: at its end a batch has ended
STAGES: Final[dict[str, tuple[str, ...]]] = {
    "receive": ("worker.transport.claims:Claims.take",),
    "deliver (kombu, Celery)": ("worker.transport.channel:Channel.claim",),
    "decode": ("worker.consume.batching:decode_message",),
    "validate": ("tasks.batch:units_of",),
    "lock and read": ("tasks.transaction:_lock", "tasks.transaction:_state"),
    "fold": ("tasks.transaction:fold",),
    "rows, as parameters": ("models.ledger:write_changes",),
    "commands, as parameters": ("models.ledger:write_commands",),
    "write, commit": ("sqlalchemy.engine.default:DefaultDialect.do_commit",),
    "make events": ("worker.publishing:event_json",),
    "publish": ("worker.publishing:Publisher.publish",),
    "settle": ("models.outbox:settle_at_once",),
    "acknowledge": ("worker.transport.claims:Claims.acknowledge",),
    "monitoring events": ("worker.consume.monitoring:Monitor.started", "worker.consume.monitoring:Monitor.finished"),
    WHOLE: ("worker.consume.batching:Batch.flush",),
}
LOOP: Final = "event loop, waiting"  # what is in none of them
EARLIER: Final = {  # what earlier commits have, in the place of a function or besides it
    "worker.publishing:event_json": "worker.publishing:event_of",
    "tasks.transaction:_state": "models.ledger:read_state",
    "models.ledger:write_commands": "models.outbox:put",
    "models.outbox:settle_at_once": "models.outbox:settle",
}
COUNTED: Final = "tasks.batch:units_of"  # returns as many as there are commands
WARM_UP: Final = 2  # batches that do not count: they connect, import and prepare


@dataclass
class Clock:
    """Time per stage, without the stages within: by the wall, and of the processor."""

    wall: dict[str, int] = field(default_factory=dict)
    cpu: dict[str, int] = field(default_factory=dict)
    commands: int = 0
    batches: int = 0
    missing: list[str] = field(default_factory=list)
    _stack: list[str] = field(default_factory=lambda: [LOOP])
    _wall: int = field(default_factory=perf_counter_ns)
    _cpu: int = field(default_factory=thread_time_ns)

    def wrap(self, stage: str, function: Callable[..., Any], *, counted: bool) -> Callable[..., Any]:
        """Return `function` with the clock on it."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            self._turn(enter=stage)
            try:
                result = function(*args, **kwargs)
            finally:
                self._turn()
            if counted:
                self._count(len(result))
            elif stage == WHOLE and self.batches == WARM_UP:  # its whole time is left out, as its commands are
                self.wall.clear()
                self.cpu.clear()
            return result

        return timed

    def _turn(self, enter: str | None = None) -> None:
        stage, wall, cpu = self._stack[-1], perf_counter_ns(), thread_time_ns()
        self.wall[stage] = self.wall.get(stage, 0) + wall - self._wall
        self.cpu[stage] = self.cpu.get(stage, 0) + cpu - self._cpu
        if enter is None:
            self._stack.pop()
        else:
            self._stack.append(enter)
        self._wall, self._cpu = perf_counter_ns(), thread_time_ns()

    def _count(self, commands: int) -> None:
        self.batches += 1
        if self.batches > WARM_UP:
            self.commands += commands

    def report(self) -> dict[str, Any]:
        """Return microseconds per command by stage."""
        per = 1000 * max(1, self.commands)
        order = [*STAGES, LOOP]
        return {
            "commands": self.commands,
            "batches": self.batches - WARM_UP,
            "missing": self.missing,
            "stages": {s: [round(self.wall.get(s, 0) / per, 2), round(self.cpu.get(s, 0) / per, 2)] for s in order},
        }


def put_on(clock: Clock) -> None:
    """Put the clock on every function in STAGES; those that have moved are named in `missing`."""
    for stage, targets in STAGES.items():
        for target in targets:
            # Each of them, where there is one: an earlier commit may have both.
            found = [_put_on(clock, stage, each) for each in (target, EARLIER.get(target)) if each]
            if not any(found):
                clock.missing.append(target)


def _put_on(clock: Clock, stage: str, target: str) -> bool:
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    try:
        owner = functools.reduce(getattr, owners, importlib.import_module(module))
        setattr(owner, name, clock.wrap(stage, getattr(owner, name), counted=target == COUNTED))
    except (AttributeError, ImportError):
        return False
    return True


def main(arguments: Sequence[str]) -> None:
    out, *words = arguments
    clock = Clock()
    put_on(clock)
    from celery.bin.celery import main as celery  # noqa: PLC0415 - nothing is imported before the clock is on

    sys.argv = ["celery", "-A", "worker", *words]
    try:
        celery()
    finally:
        Path(out).write_text(json.dumps(clock.report()))


if __name__ == "__main__":
    main(sys.argv[1:])
