"""What others pay for a hostile producer: `python -m benchmarks.hostile [NAME …]`, some three minutes.

Two workers get 500 commands a second for ten seconds. In the middle six, somebody adds what is not good for them.
"""

import json
import sys
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from statistics import quantiles
from threading import Thread
from time import sleep, time
from typing import Any, Final
from uuid import uuid4

import psycopg

from benchmarks.ground import Ground, count, wait
from benchmarks.processes import resident_mb, running
from benchmarks.root import ROOT
from benchmarks.systems import ours
from benchmarks.workload import enrolls
from enrollment.names import BULK_QUEUE, QUEUE, STREAM
from worker.lists import lists_of
from worker.transport.limits import MOST_BYTES, MOST_INFLATED, MOST_VALUES

PACE: Final = 500  # good commands per second
SECONDS: Final = 10
BEGIN: Final = 2  # seconds until the hostile ones come
HOSTILE: Final = 6  # seconds that they come for
EACH: Final = 3  # bombs of a kind
TICK: Final = 0.02  # seconds
FLOOD: Final = 10 * PACE * HOSTILE
_OUTCOMES: Final = """
    SELECT code, count(*) FROM dead_letters GROUP BY 1
     UNION ALL SELECT outcome, count(*) FROM commands WHERE source = 'hostile' GROUP BY 1 ORDER BY 1
"""


def entry(kwargs: object = None, *, body: bytes = b"", task: str = "enroll", **headers: str) -> bytes:
    """Return a message as it lies in the queue."""
    id_ = headers.setdefault("id", str(uuid4()))
    return json.dumps(
        {
            "body": b64encode(body or json.dumps([[], kwargs, {}]).encode()).decode(),
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"task": f"enrollment.{task}.v1", **headers},
            "properties": {"body_encoding": "base64", "correlation_id": id_, "delivery_tag": id_},
        }
    ).encode()


def _garbage() -> Iterable[bytes]:
    kinds = [b"\0\xff", b"{}", b"[1]", b"[" * 100_000]
    kinds += [entry(body=b"{"), entry(1), entry({}, task="x"), entry({}, id="")]
    return chain.from_iterable(repeat(kinds, PACE * HOSTILE // len(kinds)))


def _bombs() -> Iterable[bytes]:
    for more in (-2_000, 1):
        yield from repeat(b'"' + b"x" * (MOST_BYTES + more) + b'"', EACH)
        for text in (b" " * (MOST_INFLATED + more), b"[" + b"1," * (MOST_VALUES + more) + b"1]", b"[" * 1_000_000):
            yield from (entry(body=zlib.compress(text), compression="zlib") for _ in range(EACH))
            yield from (entry(body=text) for _ in range(EACH))


def _flood(students: Sequence[int]) -> Iterable[bytes]:
    for number in range(FLOOD):
        ids = [1 + number % 1_000, 1 + (number + 1) % 1_000]
        yield entry({"student_id": students[number % len(students)], "course_ids": ids, "source": "hostile"})


def _bulk() -> Iterable[bytes]:
    for first in range(1, FLOOD, 100):
        command = {"command": "enroll", "course_ids": [1, 2], "source": "hostile"}
        each = [{**command, "command_id": str(uuid4()), "student_id": first + more} for more in range(100)]
        yield entry({"commands": each}, task="apply")


TURNS: Final[dict[str, Callable[[], Iterable[bytes]]]] = {
    "nothing": tuple,
    "garbage": _garbage,
    "bombs below and above the limits": _bombs,
    "a flood of one source": lambda: _flood(range(1, 100_001)),
    "the same at priority 9": lambda: _flood(range(1, 100_001)),
    "the same in apply messages": _bulk,
    "a flood for one student": lambda: _flood([1]),
    "a flood of unknown students": lambda: _flood(range(10**9, 10**9 + 1_000)),
}


LISTS: Final = {"the same at priority 9": lists_of(QUEUE)[-1], "the same in apply messages": BULK_QUEUE}


@dataclass(frozen=True, slots=True)
class Paid:
    """What the good commands got: commands/s, milliseconds from sending to the event; megabytes of a worker."""

    rate: float
    p50: float
    p95: float
    most: float
    memory: float
    hostile: dict[str, int]


def measure(ground: Ground, entries: Sequence[bytes], queue: str) -> Paid:
    """Let the workers have both. Ends when nothing is left in the queues. Raises TimeoutError."""
    url = ground.fresh()
    good = {it.command_id: entry(it.fields(), id=it.command_id) for it in enrolls(PACE * SECONDS, seed=8)}
    sent: dict[str, float] = {}

    def push(messages: Sequence[tuple[str, bytes]], queue: str, pause: float, seconds: float) -> None:
        begin, ticks = time() + pause, round(seconds / TICK)
        with ground.client() as client:
            for tick in range(ticks):
                sleep(max(0.0, begin + tick * TICK - time()))
                part = messages[len(messages) * tick // ticks : len(messages) * (tick + 1) // ticks]
                sent.update((id_, time()) for id_, _ in part)
                if part:
                    client.lpush(queue, *(text for _, text in part))

    with running(ground, ours(2), url) as workers, ground.client() as client:
        client.lpush(QUEUE, entry({"student_id": 1, "course_ids": [1000]}))
        wait(lambda: bool(client.xlen(STREAM)), seconds=60, what="the start of the workers")
        sleep(2)  # the second one, too
        threads = [
            Thread(target=push, args=(list(good.items()), QUEUE, 0, SECONDS)),
            Thread(target=push, args=([("", it) for it in entries], queue, BEGIN, HOSTILE)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        keys = (QUEUE, *LISTS.values(), "unacked")
        wait(lambda: not client.exists(*keys) and not count(url, "outbox"), seconds=150, what="the rest")
        memory = max(resident_mb(worker.pid, "VmHWM") for worker in workers)
        events = {json.loads(fields[b"event"])["id"]: int(id_.split(b"-")[0]) for id_, fields in client.xrange(STREAM)}
    times = [events[id_] - 1000 * sent[id_] for id_ in good]
    cuts = quantiles(times, n=20)
    rate = len(good) / (max(events[id_] for id_ in good) / 1000 - min(sent[id_] for id_ in good))
    with psycopg.connect(url) as connection:
        outcomes: list[Any] = connection.execute(_OUTCOMES).fetchall()
    return Paid(rate, cuts[9], cuts[18], max(times), memory, dict(outcomes))


def main(names: Sequence[str]) -> None:
    with Ground(ROOT / ".local" / "bench" / "hostile") as ground:
        for name in names or TURNS:
            entries = list(TURNS[name]())
            paid = measure(ground, entries, LISTS.get(name, QUEUE))
            times = f"{paid.p50:.0f} / {paid.p95:.0f} / {paid.most:.0f} ms"
            print(f"{name}: {paid.rate:.0f}/s, {times}, {paid.memory:.0f} MB; {len(entries)} sent: {paid.hostile}")  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1:])
