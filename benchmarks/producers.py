"""How fast commands get into the queue."""

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from celery import Celery

from benchmarks.ground import Ground
from benchmarks.systems import ours
from benchmarks.workload import Enroll, enrolls, write
from worker.client import Client


@dataclass(frozen=True, slots=True)
class Producers:
    """Commands per second. `file` is `enrollment send FILE` as it says itself; the others are loops in one process."""

    file: float
    client: float
    bulk: float
    send_task: float


def producers(ground: Ground, *, file: int, loop: int, rounds: int) -> Producers:
    """Measure each in turn, `rounds` times; return the medians."""
    commands = enrolls(loop, seed=5)
    found = [
        Producers(
            file=_file(ground, enrolls(file, seed=4)),
            client=_timed(ground, commands, _client),
            bulk=_timed(ground, commands, _bulk),
            send_task=_timed(ground, commands, _send_task),
        )
        for _ in range(rounds)
    ]
    return Producers(
        median(one.file for one in found),
        median(one.client for one in found),
        median(one.bulk for one in found),
        median(one.send_task for one in found),
    )


def _file(ground: Ground, commands: Sequence[Enroll]) -> float:
    ground.empty_redis()
    path, system = write(ground.folder / "commands.jsonl", commands), ours(1, bulk=True)
    done = subprocess.run(
        [*system.command(ground.folder, system.send), str(path), "--json"],
        check=True,
        capture_output=True,
        text=True,
        cwd=system.cwd,
        env=system.environment(database_url=ground.postgres.url, redis_url=ground.redis.url),
    )
    report = json.loads(done.stdout)
    return float(report["sent"] / report["seconds"])


def _timed(ground: Ground, commands: Sequence[Enroll], send: Callable[[str, Sequence[Enroll]], None]) -> float:
    ground.empty_redis()
    begin = perf_counter()
    send(ground.redis.url, commands)
    return len(commands) / (perf_counter() - begin)


def _client(url: str, commands: Sequence[Enroll]) -> None:
    with Client(url) as client:
        for command in commands:
            client.enroll(command.student_id, command.course_ids)


def _bulk(url: str, commands: Sequence[Enroll]) -> None:
    with Client(url) as client, client.bulk() as bulk:
        for command in commands:
            bulk.enroll(command.student_id, command.course_ids)


def _send_task(url: str, commands: Sequence[Enroll]) -> None:
    app = Celery("bench", broker=url, set_as_current=False)
    app.conf.task_ignore_result = True
    for command in commands:
        app.send_task("enrollment.enroll.v1", kwargs=command.fields(), queue="enrollment")
    app.close()
