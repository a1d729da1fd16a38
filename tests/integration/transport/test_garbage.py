import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis

from enrollment.errors import DeadLetterCode
from tests.integration.transport.conftest import INDEX, Receiver, expire_all, state

HEADERS = {"id": "1", "task": "t"}
BODY = b64encode(b"[[], {}, {}]").decode()
ENVELOPE = {"headers": HEADERS, "body": BODY, "properties": {"body_encoding": "base64"}}

GARBAGE = {
    "text": b"hello",
    "nothing": b"",
    "not UTF-8": b"\xff\xfe\x00",
    "half a message": json.dumps(ENVELOPE).encode()[:-5],
    "a list": b"[1, 2]",
    "a number": b"1",
    "null": b"null",
    "no headers": json.dumps({"body": BODY, "properties": {}}).encode(),
    "headers that are a list": json.dumps(ENVELOPE | {"headers": []}).encode(),
    "no id": json.dumps(ENVELOPE | {"headers": {"task": "t"}}).encode(),
    "an id that is a number": json.dumps(ENVELOPE | {"headers": {"id": 1, "task": "t"}}).encode(),
    "no task": json.dumps(ENVELOPE | {"headers": {"id": "1"}}).encode(),
    "a task that is a list": json.dumps(ENVELOPE | {"headers": {"id": "1", "task": ["t"]}}).encode(),
    "properties that are text": json.dumps(ENVELOPE | {"properties": "x"}).encode(),
    "a body that is not base64": json.dumps(ENVELOPE | {"body": "a"}).encode(),
    "a body that is a list": json.dumps(ENVELOPE | {"body": [1]}).encode(),
    "no body": json.dumps({"headers": HEADERS, "properties": {}}).encode(),
    "an unknown body encoding": json.dumps(ENVELOPE | {"properties": {"body_encoding": "rot13"}}).encode(),
    "a body encoding that is a list": json.dumps(ENVELOPE | {"properties": {"body_encoding": []}}).encode(),
    "a lone surrogate in a plain body": b'{"headers":{"id":"1","task":"t"},"body":"\\ud800"}',
    "nested 100,000 deep": b"[" * 100_000,
    "a number of 5,000 digits": b"[" + b"9" * 5_000 + b"]",
    "what looks like a record": b'{},"","a"],"","a"]',
}


@pytest.mark.parametrize("entry", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_handed_over_as_it_is_and_stops_nothing(
    entry: bytes, receiver: Callable[..., Receiver], send: Callable[..., None], redis_url: str, redis_client: Any
) -> None:
    with Redis.from_url(redis_url) as raw:
        raw.lpush("a", entry)
    send("good")
    mine = receiver()
    assert [message.headers["id"] for message in mine.drain(count=2)] == ["good"]
    ((kept, code, _),) = mine.garbage
    assert kept == entry
    assert code in {DeadLetterCode.NOT_A_MESSAGE, DeadLetterCode.UNDECODABLE_BODY}
    assert state(redis_client) == (0, 1, 1)  # the good one


def test_garbage_that_could_not_be_kept_comes_again_under_its_tag(
    receiver: Callable[..., Receiver], redis_client: Any
) -> None:
    redis_client.lpush("a", "hello")
    mine = receiver()
    mine.channel.on_garbage = None
    mine.drain(timeout=0.5)
    tags = redis_client.zrange(INDEX, 0, -1)
    assert state(redis_client) == (0, 1, 1)
    expire_all(redis_client)
    mine.channel.on_garbage = mine.on_garbage
    mine.drain(timeout=3)
    assert [(raw, tag) for raw, _, tag in mine.garbage] == [(b"hello", tags[0])]
    assert state(redis_client) == (0, 0, 0)


@pytest.mark.parametrize(
    "entry",
    [
        {"headers": HEADERS, "body": "[[], {}, {}]"},
        {"headers": HEADERS, "body": "[[], {}, {}]", "properties": {"body_encoding": "utf-8", "delivery_info": 7}},
        ENVELOPE,
        ENVELOPE | {"properties": {"body_encoding": "base64", "priority": "high", "delivery_tag": "not unique"}},
    ],
)
def test_a_message_made_by_hand_is_a_message(
    entry: dict[str, Any], receiver: Callable[..., Receiver], redis_client: Any
) -> None:
    for _ in range(2):
        redis_client.lpush("a", json.dumps(entry))
    messages = receiver().drain(count=2)
    assert [message.body for message in messages] == [b"[[], {}, {}]"] * 2
    assert len({message.delivery_tag for message in messages}) == 2
    for message in messages:
        message.ack()
    assert state(redis_client) == (0, 0, 0)


def test_what_somebody_else_wrote_into_the_records_stops_nothing(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1")
    silent = receiver()
    (message,) = silent.drain()
    silent.vanish()
    tag = message.delivery_tag
    for garbage in ("x", "nan", "inf", "9" * 400, ""):
        counters = {f"{tag}{name}": garbage for name in ("", ":begun", ":read", ":forgiven")}
        redis_client.hset("unacked_deliveries", mapping=counters)
        redis_client.set("a\x06\x163", "no list")
        expire_all(redis_client)
        heir = receiver()
        assert heir.ids() == ["1"]
        heir.channel.begin([tag])
        redis_client.hset("unacked_deliveries", mapping=counters)
        heir.channel.touch()
        heir.channel.begin([tag])
        heir.vanish()
