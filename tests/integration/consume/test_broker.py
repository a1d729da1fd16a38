import json
import signal
import time
from collections.abc import Callable
from os import kill
from typing import Any

from kombu import Connection

from tests.eventually import eventually
from tests.integration.consume.conftest import ENROLL, Broker, Worker
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


def _broadcast(body: str, **changes: object) -> str:
    properties = {"delivery_tag": "x", "delivery_info": {"exchange": "celery.pidbox", "routing_key": ""}}
    message = {"body": body, "content-type": "application/json", "content-encoding": "utf-8", "properties": properties}
    return json.dumps({**message, **changes})


GARBAGE: list[str | bytes] = [
    *(b"x", b"\xff", b"[]", b"1", b"null", b"{}", b'"x"', b"[" * 100_000, b"9" * 6_000),
    *(b'{"properties":1}', b'{"properties":{}}', b'{"properties":{"delivery_tag":"x"},"body":"%%%","headers":1}'),
    *map(_broadcast, ("", "[]", "1", "[" * 100_000, "9" * 6_000, '{"method":1}', '{"method":"ping","arguments":5}')),
    _broadcast('{"method":"ping","arguments":{},"reply_to":5}'),
    _broadcast('{"method":"revoke","arguments":{"task_id":{}},"reply_to":{"exchange":"a/b","routing_key":"c"}}'),
    _broadcast("x", **{"content-type": "application/x-python-serialize"}),
    _broadcast("x", **{"content-encoding": "bz2"}),
    _broadcast("x", headers={"compression": "rot13"}),
    _broadcast("x", headers=[1]),
    _broadcast("x", properties={"delivery_tag": "x", "delivery_info": 7, "body_encoding": "base64"}),
]


def test_garbage_on_the_channels_of_remote_control_and_events_stops_nothing(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    worker = start()
    for garbage in GARBAGE:
        for channel in ("/0.celery.pidbox", "/0.celeryev/worker.heartbeat", "/0.celeryev/task.x"):
            broker.redis.publish(channel, garbage)
    sent = broker.send()
    eventually(lambda: broker.applied() == sent)
    eventually(lambda: broker.app.control.ping(timeout=2))
    assert worker.child.running
