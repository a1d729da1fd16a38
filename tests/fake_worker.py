"""A Celery app with the real transport, consumer and strategy, and a service that writes down what it is asked to do.

`celery -A tests.fake_worker -b redis://… worker`, or `-b amqp://…` with ENROLLMENT_EVENTS_URL. What it does is told by
the `source` of a command (`die`, `die-in-reading`, …), and by keys: `fake:away` (while it exists, the database is
away), `fake:locked` (while it exists, a table is locked), `fake:busy` (while it exists, a batch is not done),
`fake:slow` (seconds that each batch takes), `fake:immortal` (while it exists, nothing kills the worker).
"""

import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from celery import Celery
from kombu import Exchange, Queue
from redis import Redis

from enrollment.names import QUEUE_ARGUMENTS
from models.dead_letters import NewDeadLetter
from tasks.arrival import Arrival
from tasks.caution import Blocked
from tasks.messages import Message
from tasks.results import Failure
from worker.consume import batching
from worker.transport import channel, register

VISIBILITY_TIMEOUT = 3.0  # seconds

register()


def _deadly(step: Callable[..., Any], word: bytes) -> Callable[..., Any]:
    """Let a step kill its process when the message says so."""

    def run(*args: Any, **kwargs: Any) -> Any:
        texts = [getattr(value, "body", value) for value in args]  # an entry, or a delivery
        if any(isinstance(text, bytes) and word in text for text in texts):
            os.kill(os.getpid(), signal.SIGKILL)
        return step(*args, **kwargs)

    return run


channel.parse = _deadly(channel.parse, b"die-in-parsing")  # type: ignore[attr-defined]  # imported there
batching.decode_message = _deadly(batching.decode_message, b"die-in-reading")  # type: ignore[attr-defined]


class FakeService:
    """Keeps lists in Redis: `fake:begun` and `fake:applied` (a batch each), `fake:dead_letters`."""

    def __init__(self, url: str) -> None:
        self.redis: Any = Redis.from_url(url)

    def handle(
        self,
        messages: Sequence[Message],
        keep_alive: Callable[[], None] = lambda: None,
        arrival: Arrival | None = None,  # noqa: ARG002 (the service's)
    ) -> list[str]:
        batch = json.dumps([{"id": m.task_id, "key": m.key, "pid": os.getpid()} for m in messages])
        self.redis.rpush("fake:begun", batch)
        orders = {str(message.kwargs.get("source")) for message in messages}
        if "die" in orders and not self.redis.exists("fake:immortal"):
            os.kill(os.getpid(), signal.SIGKILL)
        if "raise" in orders:
            raise RuntimeError("nobody foresaw this")
        if self.redis.exists("fake:locked"):
            raise Blocked
        while self.redis.exists("fake:away"):
            keep_alive()
            time.sleep(0.1)
        while self.redis.exists("fake:busy"):
            time.sleep(0.01)
        time.sleep(float(self.redis.get("fake:slow") or 0))
        self.redis.rpush("fake:applied", batch)
        if "die-late" in orders:
            os.kill(os.getpid(), signal.SIGKILL)
        return [_outcome(message) for message in messages]

    def dead_letter(self, letters: Sequence[NewDeadLetter], keep_alive: Callable[[], None] = lambda: None) -> None:
        while self.redis.exists("fake:away"):
            keep_alive()
            time.sleep(0.1)
        for letter in letters:
            shown = {"key": letter.key, "code": letter.code, "payload": letter.payload, "task": letter.task}
            self.redis.rpush("fake:dead_letters", json.dumps(shown))

    def relay(self) -> int:
        return 0

    def look_again(self) -> None:
        """There is no stream to look for."""

    def release(self) -> float | None:
        return None


def _outcome(message: Message) -> str:
    return Failure("dead letter processing_failed: so told") if message.kwargs.get("source") == "fail" else "applied"


class FakeApp(Celery):
    @cached_property
    def service(self) -> FakeService:
        return FakeService(os.environ.get("ENROLLMENT_EVENTS_URL", self.conf.broker_url))


app = FakeApp("fake", include=["tasks.commands", "tasks.periodic"])
app.conf.update(
    task_queues=[
        Queue(name, Exchange(name), name, queue_arguments=dict(QUEUE_ARGUMENTS))
        for name in ("enrollment", "enrollment.bulk")
    ],
    task_default_queue="enrollment",
    task_routes={"enrollment.apply.v1": {"queue": "enrollment.bulk"}},
    task_ignore_result=True,
    task_acks_late=True,
    worker_pool="solo",
    worker_concurrency=1,
    worker_prefetch_multiplier=100,
    worker_consumer="worker.consume.consumer:Consumer",
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,
    broker_transport_options={
        "visibility_timeout": VISIBILITY_TIMEOUT,
        "unacked_restore_interval": float(os.environ.get("FAKE_TICK", "0.1")),
        "claim_limits": {"enrollment.bulk": 4},
        "prefetch": {"enrollment": 200, "enrollment.bulk": 4},
        "socket_timeout": 2,
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 5,
        **json.loads(os.environ.get("FAKE_OPTIONS", "{}")),
    },
)
