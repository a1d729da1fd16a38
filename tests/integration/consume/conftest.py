"""The real worker process with a service that only writes down what it is asked to do (tests/fake_worker.py)."""

import json
import signal
import sys
from collections.abc import Callable, Iterator
from os import kill
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from kombu import pools
from redis import Redis

from tests.eventually import eventually
from tests.fake_worker import app as fake_app
from tests.root import ROOT
from worker.local.process import Child

ENROLL, APPLY = "enrollment.enroll.v1", "enrollment.apply.v1"


class Worker:
    """A worker process, started and ready."""

    def __init__(self, url: str, log: Path, *options: str) -> None:
        command = [sys.executable, "-m", "celery", "-A", "tests.fake_worker", "-b", url, "worker", "-l", "INFO"]
        self.log = log
        self.child = Child(
            name="worker",
            command=[*command, "--without-mingle", "--without-gossip", f"-n{uuid4().hex}@%h", *options],
            log=log,
            cwd=ROOT,
        )
        self.start()

    def start(self) -> None:
        self.log.write_bytes(b"")
        self.child.start()
        eventually(lambda: " ready." in self.said or not self.child.running)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        kill(self.child.pid, number)

    def wait(self) -> None:
        """Wait for it to end."""
        eventually(lambda: not self.child.running)


@pytest.fixture
def start(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Give a function that starts workers; they are killed in the end."""
    workers: list[Worker] = []

    def start_worker(*options: str) -> Worker:
        workers.append(Worker(redis_url, tmp_path / f"worker{len(workers)}.log", *options))
        return workers[-1]

    yield start_worker
    for worker in workers:
        print(worker.log.name, worker.said[-6000:])  # noqa: T201 (pytest shows it when the test fails)
        worker.child.kill()


class Broker:
    """What the test sees of the other side: it sends, and reads what the service wrote down."""

    def __init__(self, url: str, app: Celery) -> None:
        self.redis: Any = Redis.from_url(url, decode_responses=True)
        self.app: Any = app

    def send(self, count: int = 1, task: str = ENROLL, **kwargs: Any) -> list[str]:
        options = {name: kwargs.pop(name) for name in ("expires", "priority", "task_id", "link") if name in kwargs}
        kwargs = {"student_id": 1, **kwargs}
        with self.app.connection_for_write() as line:
            return [str(self.app.send_task(task, kwargs=kwargs, connection=line, **options)) for _ in range(count)]

    def push(self, *, queue: str = "enrollment", **changes: Any) -> None:
        headers = {"id": str(uuid4()), "task": ENROLL, **changes.pop("headers", {})}
        message = {"headers": headers, "body": "[[], {}, {}]", "content-type": "application/json", **changes}
        self.redis.lpush(queue, json.dumps(message))

    def batches(self, key: str = "fake:applied") -> list[list[str]]:
        return [[message["id"] for message in json.loads(batch)] for batch in self.redis.lrange(key, 0, -1)]

    def applied(self) -> list[str]:
        return [id_ for batch in self.batches() for id_ in batch]

    def has_applied(self, count: int) -> bool:
        return len(set(self.applied())) >= count

    def keys_begun(self, task_id: str) -> list[str]:
        batches = self.redis.lrange("fake:begun", 0, -1)
        return [m["key"] for batch in batches for m in json.loads(batch) if m["id"] == task_id]

    def dead_lettered(self) -> list[str]:
        return [json.loads(letter)["code"] for letter in self.redis.lrange("fake:dead_letters", 0, -1)]

    def expire(self) -> None:
        """Let the visibility timeout pass for all that is claimed, without waiting for it."""
        for tag in self.redis.zrange("unacked_index", 0, -1):
            self.redis.zadd("unacked_index", {tag: 1}, xx=True)

    def at_rest(self) -> bool:
        """Tell whether nothing waits and nothing is claimed."""
        return not any(
            self.redis.exists(key) for key in ("enrollment", "enrollment.bulk", "unacked", "unacked_index")
        ) and not self.redis.exists("unacked_deliveries")


def aim(url: str) -> None:
    """Let the app send to `url`, and keep no connection: what it leads to may be killed.

    The limit is that of the whole process. A smaller one forgets connections of other apps, and closes none of them.
    """
    pools.reset()
    fake_app._after_fork()  # type: ignore[attr-defined]  # it forgets the pools that are closed now
    fake_app.conf.update(broker_url=url, broker_read_url=url, broker_write_url=url, broker_pool_limit=0)


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    aim(redis_url)
    made = Broker(redis_url, fake_app)
    yield made
    made.redis.close()
    fake_app.close()
