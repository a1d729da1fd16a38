"""One RabbitMQ for these tests; the worker is the one with a service that only writes down (tests/fake_worker.py)."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import amqp
import pytest

from enrollment.names import BULK_QUEUE, QUEUE
from tests.fake_worker import app as fake_app
from tests.integration.consume.conftest import Broker, Worker, aim
from tests.rabbitmq import PortMapper, RabbitMQ

QUEUES: Final = (QUEUE, BULK_QUEUE)


@pytest.fixture(scope="session")
def node(server_folder: Path) -> Iterator[RabbitMQ]:
    mapper = PortMapper(server_folder)
    mapper.start()
    try:
        with RabbitMQ(server_folder / "rabbitmq", mapper) as node:
            yield node
    finally:
        mapper.stop()


class RabbitBroker(Broker):
    """RabbitMQ as a stock producer sees it; what the service wrote down is in Redis."""

    def __init__(self, node: RabbitMQ, redis_url: str) -> None:
        super().__init__(redis_url, fake_app)
        self.node = node
        self.url = node.url
        self.line = node.connect()

    def publish(
        self, body: str | bytes, headers: Mapping[str, Any] | None = None, *, queue: str = QUEUE, **properties: Any
    ) -> None:
        """Send anything, confirmed."""
        told = {"content_type": "application/json", "content_encoding": "utf-8", **properties}
        raw = body.encode() if isinstance(body, str) else body
        message = amqp.Message(raw, application_headers=dict(headers or {}), delivery_mode=2, **told)
        with self.line.channel() as channel:
            channel.basic_publish_confirm(message, routing_key=queue, mandatory=True, confirm_timeout=20)

    def count(self, queue: str = QUEUE) -> int:
        """Return how many messages are ready."""
        with self.line.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)

    def delete(self) -> None:
        for queue in QUEUES:
            with suppress(amqp.NotFound), self.line.channel() as channel:
                channel.queue_delete(queue)


@pytest.fixture
def rabbit(node: RabbitMQ, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RabbitBroker]:
    monkeypatch.setenv("ENROLLMENT_EVENTS_URL", redis_url)
    monkeypatch.setenv("ENROLLMENT_BROKER_URL", node.url)
    aim(node.url)
    broker = RabbitBroker(node, redis_url)
    broker.delete()
    yield broker
    broker.delete()
    broker.line.close()
    broker.redis.close()
    fake_app.close()


@pytest.fixture
def start(rabbit: RabbitBroker, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Give a function that starts workers; they are killed in the end."""
    workers: list[Worker] = []

    def start_worker(*options: str) -> Worker:
        workers.append(Worker(rabbit.url, tmp_path / f"worker{len(workers)}.log", *options))
        return workers[-1]

    yield start_worker
    for worker in workers:
        print(worker.log.name, worker.said[-6000:])  # noqa: T201 (pytest shows it when the test fails)
        worker.child.kill()
