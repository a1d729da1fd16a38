"""Queues that are there already, and what a producer is told: confirmed, refused, blocked."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kombu import Connection, Queue

from enrollment.client import BrokerAway, Client, broker_connection
from enrollment.names import BULK_QUEUE, QUEUE, QUEUE_ARGUMENTS
from tests.eventually import eventually
from tests.integration.rabbitmq.conftest import RabbitBroker
from tests.integration.test_exporter import beat
from worker import rabbitmq
from worker.brokers import AmqpBroker
from worker.heartbeats import Heartbeats
from worker.local.server import free_port
from worker.transport import register

SHORT = "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []})."
ENOUGH = "rabbit_alarm:clear_alarm({resource_limit, memory, node()})."


def declare(rabbit: RabbitBroker) -> list[bool]:
    """Declare both as a worker does; tell for each whether it stays as it was made by somebody else."""
    queues = [Queue(name, queue_arguments=dict(QUEUE_ARGUMENTS)) for name in (QUEUE, BULK_QUEUE)]
    with Connection(rabbit.url) as connection:
        rabbitmq.declare(connection, queues)
        return [bool(vars(queue)["no_declare"]) for queue in queues]


def test_both_queues_are_made_and_found_again(rabbit: RabbitBroker) -> None:
    with Connection(rabbit.url) as connection:
        assert list(rabbitmq.look(connection, (QUEUE, BULK_QUEUE))) == [(QUEUE, None), (BULK_QUEUE, None)]
        assert declare(rabbit) == declare(rabbit) == [False, False]
        rabbit.publish("[]")
        assert list(rabbitmq.look(connection, (QUEUE, BULK_QUEUE))) == [(QUEUE, 1), (BULK_QUEUE, 0)]


def test_the_exporter_passes_over_every_node_that_is_away(rabbit: RabbitBroker) -> None:
    declare(rabbit)
    rabbit.publish("[]")
    several = ";".join([*(rabbit.url.replace(str(rabbit.node.port), str(free_port())) for _ in range(2)), rabbit.url])
    assert AmqpBroker(several).depths().queues[QUEUE].messages == 1
    heartbeats = Heartbeats(several, {})
    heartbeats.start()

    def heard() -> bool:
        beat(rabbit.url, {})
        return bool(heartbeats.alive())

    eventually(heard)


@pytest.mark.parametrize("durable", [True, False])
def test_a_classic_queue_is_refused_in_a_sentence_that_says_what_to_do(rabbit: RabbitBroker, durable: bool) -> None:  # noqa: FBT001
    with rabbit.line.channel() as channel:
        channel.queue_declare(BULK_QUEUE, durable=durable, auto_delete=False)
    with pytest.raises(rabbitmq.QueueRefused, match=r"enrollment\.bulk .* `rabbitmqctl delete_queue enrollment\.bulk`"):
        declare(rabbit)
    with Connection(rabbit.url) as connection, pytest.raises(rabbitmq.QueueRefused):
        list(rabbitmq.look(connection, (QUEUE, BULK_QUEUE)))


def test_a_quorum_queue_of_somebody_elses_making_stays_as_it_is(rabbit: RabbitBroker) -> None:
    with rabbit.line.channel() as channel:
        arguments = {"x-queue-type": "quorum", "x-max-length": 1000}
        channel.queue_declare(QUEUE, durable=True, auto_delete=False, arguments=arguments)
    assert declare(rabbit) == [True, False]


def test_a_producer_goes_to_the_next_node_and_makes_a_queue_anew_that_was_deleted(rabbit: RabbitBroker) -> None:
    with Client(f"amqp://127.0.0.1:1//;{rabbit.url}") as client:
        client.enroll(1, [2])
        assert rabbit.count() == 1
        rabbit.delete()
        client.enroll(1, [2])
    assert declare(rabbit) == [False, False]
    assert rabbit.count() == 1


def test_a_message_that_is_not_confirmed_is_an_error_that_names_each_node_and_no_password(
    rabbit: RabbitBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_connection, "_ANSWER", 3.0)
    client = Client(f"{rabbit.url};amqp://user:hunter2@127.0.0.1:1//", patience=0.5)
    sending = iter(lambda: client.enroll(1, [2]), None)  # the alarm is not heard at once
    next(sending)
    with client, alarm(rabbit), pytest.raises(BrokerAway, match="it blocks producers") as caught:
        deque(sending, maxlen=0)
    assert f"amqp://127.0.0.1:{rabbit.node.port}// or amqp://127.0.0.1:1//" in str(caught.value)
    assert rabbit.node.password not in str(caught.value)


def test_a_message_that_the_queue_refuses_is_an_error(rabbit: RabbitBroker) -> None:
    arguments = {"x-queue-type": "quorum", "x-max-length": 1, "x-overflow": "reject-publish"}
    with rabbit.line.channel() as channel:
        channel.queue_declare(QUEUE, durable=True, auto_delete=False, arguments=arguments)
    with Client(rabbit.url, patience=0.5) as client:
        sending = iter(lambda: client.enroll(1, [2]), None)  # a quorum queue takes a few more than it should
        with pytest.raises(BrokerAway, match="did not take the message"):
            deque(sending, maxlen=0)


def test_a_worker_that_tells_of_its_tasks_is_not_held_up_while_producers_are_blocked(rabbit: RabbitBroker) -> None:
    register()
    declare(rabbit)
    with Connection(rabbit.url) as connection:
        line: Any = connection.connection
        producer = connection.Producer()
        with alarm(rabbit):
            producer.publish("the first", routing_key=QUEUE)  # is what makes RabbitMQ say so
            eventually(lambda: line.drain() or line.blocked)
            for _ in range(50):  # more than sockets hold
                producer.publish("x" * 1_000_000, routing_key=QUEUE)
        eventually(lambda: line.drain() or not line.blocked)
        producer.publish("the last", routing_key=QUEUE)
        eventually(lambda: rabbit.count() == 2)


@contextmanager
def alarm(rabbit: RabbitBroker) -> Iterator[None]:
    """Let the node be short of memory."""
    rabbit.node.run(SHORT)
    try:
        yield
    finally:
        rabbit.node.run(ENOUGH)
