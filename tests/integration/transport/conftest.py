"""Receivers with the worker's transport, a stock producer, and what Redis keeps of it all."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Queue

from enrollment.errors import DeadLetterCode
from worker.transport import Channel, Transport

UNACKED, INDEX, DELIVERIES = "unacked", "unacked_index", "unacked_deliveries"
STOCK = "kombu.transport.redis:Transport"


class Receiver:
    """A consumer of its own connection, without an event loop."""

    def __init__(self, url: str, queues: Sequence[str] = ("a",), prefetch: int = 0, **options: Any) -> None:
        options = {"visibility_timeout": 60, "socket_timeout": 5, **options}
        transport = options.pop("transport", Transport)
        connection: Any = Connection(url, transport=transport, transport_options=options)
        self.connection = connection
        self.channel = connection.channel()
        self.messages: list[Any] = []
        self.garbage: list[tuple[bytes, str, str]] = []
        self.channel.on_garbage = self.on_garbage
        self.channel.basic_qos(0, prefetch)
        bound = [Queue(name, Exchange(name), name) for name in queues]
        Consumer(self.channel, bound, on_message=self.messages.append, accept=["json"]).consume()

    def on_garbage(self, raw: bytes, code: DeadLetterCode, _message: str, tag: str, **_: bool) -> None:
        self.garbage.append((raw, code, tag))
        self.channel.ack_many([tag])

    def drain(self, count: int = 1, timeout: float = 5) -> list[Any]:
        """Wait until `count` messages have come, or for `timeout` seconds; return all that came."""
        until = time.monotonic() + timeout
        while len(self.messages) + len(self.garbage) < count and time.monotonic() < until:
            with suppress(TimeoutError):
                self.connection.drain_events(timeout=0.2)
        came, self.messages[:] = list(self.messages), []
        return came

    def ids(self, count: int = 1, timeout: float = 5) -> list[str]:
        return [message.headers["id"] for message in self.drain(count, timeout)]

    def vanish(self) -> None:
        """Go as a killed process does: nothing is given back."""
        self.channel.qos.claims.clear() if isinstance(self.channel, Channel) else None
        self.channel.qos._delivered.clear()
        self.connection.release()


@pytest.fixture
def receiver(redis_url: str) -> Iterator[Callable[..., Receiver]]:
    """Give a function that opens receivers; they are closed in the end."""
    opened: list[Receiver] = []

    def open_receiver(*args: Any, **kwargs: Any) -> Receiver:
        opened.append(Receiver(redis_url, *args, **kwargs))
        return opened[-1]

    yield open_receiver
    for each in opened:
        each.connection.release()


@pytest.fixture
def send(redis_url: str) -> Iterator[Callable[..., None]]:
    """Give a stock producer: `send("1", "2", queue="a", priority=0)`."""
    with Connection(redis_url, transport=STOCK) as connection:
        producer = connection.Producer(serializer="json")

        def publish(*ids: str, queue: str = "a", body: object = ((), {}, {}), **options: Any) -> None:
            exchange = Exchange(queue)
            for id_ in ids:
                producer.publish(
                    body,
                    exchange=exchange,
                    routing_key=queue,
                    declare=[Queue(queue, exchange, queue)],
                    headers={"id": id_, "task": "t"},
                    **options,
                )

        yield publish


def state(client: Any) -> tuple[int, int, int]:
    """Return how many messages are waiting in `a`, claimed, and indexed as claimed."""
    return client.llen("a"), client.hlen(UNACKED), client.zcard(INDEX)


def expire_all(client: Any) -> None:
    for tag in client.zrange(INDEX, 0, -1):
        client.zadd(INDEX, {tag: 1})
