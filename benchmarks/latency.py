"""One command on an idle system: the time until its event can be read, and the processor time that it takes."""

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import Any, Final, cast

from celery import Celery

from benchmarks.backlog import Used
from benchmarks.ground import Ground, wait
from benchmarks.processes import running
from benchmarks.systems import System
from benchmarks.workload import Enroll, enrolls

WARM_UP: Final = 20  # commands that do not count
PAUSE: Final = (0.004, 0.012)  # seconds between an event and the next command
START: Final = 60.0  # seconds
ANSWER_MS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds. `processor`: of worker, PostgreSQL and Redis, per command."""

    p50: float
    p99: float
    processor: float
    commands: int


def latencies(ground: Ground, system: System, count: int) -> tuple[list[float], float]:
    """Return the milliseconds of `count` commands, and those of the processors for all of them.

    All are sent by Celery's own `send_task`, whoever applies them.
    """
    url = ground.fresh()
    commands = enrolls(WARM_UP + count, seed=count)
    app = Celery("bench", broker=ground.redis.url, set_as_current=False)
    app.conf.task_ignore_result = True
    with running(ground, system, url) as children, ground.client() as client:
        _send(app, system, commands[0])
        wait(lambda: client.xlen(system.stream) > 0, seconds=START, what=f"the start of {system.key}")
        for command in commands[1:WARM_UP]:
            _one(app, system, client, command)
        used = Used(ground, children)
        before = sum(used.now())
        found = [_one(app, system, client, command) for command in commands[WARM_UP:]]
        processor = 1000 * (sum(used.now()) - before)
    app.close()
    return found, processor


def summary(runs: Sequence[tuple[list[float], float]]) -> Latency:
    """Return the median and the 99th percentile of these, and what the processors did for each command."""
    times = [each for found, _ in runs for each in found]
    cuts = quantiles(times, n=100)
    return Latency(cuts[49], cuts[98], sum(processor for _, processor in runs) / len(times), len(times))


def _one(app: Celery, system: System, client: Any, command: Enroll) -> float:
    time.sleep(random.uniform(*PAUSE))  # noqa: S311 - not in step with anybody's timer
    last = client.xinfo_stream(system.stream)["last-generated-id"]
    begin = time.perf_counter()
    _send(app, system, command)
    if not client.xread({system.stream: last}, block=ANSWER_MS):
        raise TimeoutError(f"{system.key} did not answer within {ANSWER_MS / 1000:.0f} s")
    return 1000 * (time.perf_counter() - begin)


def _send(app: Celery, system: System, command: Enroll) -> None:
    if system.peer is None:
        app.send_task("enrollment.enroll.v1", kwargs=command.fields(), task_id=command.command_id, queue="enrollment")
    else:
        arguments = (command.command_id, command.student_id, list(command.course_ids))
        app.send_task("enroll", args=cast(Any, arguments), task_id=command.command_id)
