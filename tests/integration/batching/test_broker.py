import signal
import time
from collections.abc import Callable
from os import kill
from typing import Any

from kombu import Connection

from tests.integration.batching.conftest import ENROLL, Broker, Worker
from tests.waiting import eventually
from worker.local.redis import Redis as RedisServer


def test_cut_connections_are_made_anew(broker: Broker, start: Callable[..., Worker]) -> None:
    worker = start()
    sent: list[str] = []
    for _ in range(5):
        sent += broker.send(count=20)
        broker.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(0.3)
    eventually(lambda: set(broker.applied()) == set(sent))
    eventually(broker.at_rest)
    assert worker.child.running


def test_a_broker_that_is_killed_and_comes_back_is_waited_for(
    broker: Broker, start: Callable[..., Worker], redis: RedisServer
) -> None:
    worker = start()
    sent = broker.send(count=20)
    eventually(lambda: len(broker.applied()) == 20)
    redis.kill()
    eventually(lambda: "Trying again in" in worker.said)
    redis.start()
    sent += broker.send(count=20)
    eventually(lambda: set(broker.applied()) == set(sent), patience=40)
    eventually(broker.at_rest)
    assert worker.child.running


def test_a_network_that_swallows_everything_is_survived(
    broker: Broker, start: Callable[..., Worker], redis: RedisServer
) -> None:
    worker = start()
    kill(redis.pid, signal.SIGSTOP)
    try:
        eventually(lambda: "Trying to re-establish" in worker.said)
        eventually(lambda: "Trying again in" in worker.said)  # nor can it be reached anew
    finally:
        kill(redis.pid, signal.SIGCONT)
    sent = broker.send(count=20)
    eventually(lambda: sorted(broker.applied()) == sorted(sent))
    eventually(broker.at_rest)
    assert worker.child.running


def test_stock_producers_and_tools_see_an_ordinary_queue(broker: Broker, redis_url: str) -> None:
    broker.send(count=3)
    with Connection(redis_url, transport="kombu.transport.redis:Transport") as connection:
        channel: Any = connection.channel()
        message = channel.basic_get("enrollment")
        assert message is not None
        assert message.headers["task"] == ENROLL
        message.requeue()
    assert broker.redis.llen("enrollment") == 3
    assert broker.app.control.purge() == 3
