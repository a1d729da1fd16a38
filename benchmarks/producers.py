"""How fast commands get into the queue.

One by one, each waits for its answer: with `appendfsync always` that is a disk's, which no client can shorten. So the
loops run with `everysec` as well, and `lpush` says what the same bytes take through redis-py with nothing around them.
"""

import json
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Final

from celery import Celery
from redis import Redis

from benchmarks.ground import Ground
from benchmarks.systems import ours
from benchmarks.workload import Enroll, enrolls, write
from enrollment.client import Client

_ENTRY: Final = "x" * 1_100  # as long as the message of one command


@dataclass(frozen=True, slots=True)
class Producers:
    """Commands per second. `file` is `enrollment send FILE` as it says itself; the others are loops in one process.

    Those whose name ends so had a Redis that writes to disk every second, the others one that does for every message.
    """

    file: float
    client: float
    bulk: float
    send_task: float
    lpush: float
    client_everysec: float
    send_task_everysec: float
    lpush_everysec: float


def producers(ground: Ground, *, file: int, loop: int, rounds: int) -> Producers:
    """Measure each in turn, `rounds` times; return the medians."""
    commands = enrolls(loop, seed=5)
    found: list[tuple[float, ...]] = []
    for _ in range(rounds):
        always = [_timed(ground, commands, send) for send in (_client, _bulk, _send_task, _lpush)]
        with _everysec(ground):
            everysec = [_timed(ground, commands, send) for send in (_client, _send_task, _lpush)]
        found.append((_file(ground, enrolls(file, seed=4)), *always, *everysec))
    return Producers(*map(median, zip(*found, strict=True)))


@contextmanager
def _everysec(ground: Ground) -> Iterator[None]:
    with ground.client() as client:
        client.config_set("appendfsync", "everysec")
        try:
            yield
        finally:
            client.config_set("appendfsync", "always")


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


def _lpush(url: str, commands: Sequence[Enroll]) -> None:
    with Redis.from_url(url) as client:
        for _ in commands:
            client.lpush("enrollment", _ENTRY)
