"""The worker on quorum queues: what it takes at once, what becomes a dead letter, and what it goes on after."""

import zlib
from collections.abc import Callable
from struct import pack
from typing import Any
from uuid import uuid4

import pytest
from amqp.serialization import GenericContent

from tests.eventually import eventually
from tests.integration.consume.conftest import APPLY, ENROLL, Worker
from tests.integration.rabbitmq.conftest import QUEUES, RabbitBroker
from worker.transport.channel import DELIVERIES

BODY = '[[], {"student_id": 1, "course_ids": [1]}, {}]'


def headers(**others: Any) -> dict[str, Any]:
    return {"id": str(uuid4()), "task": ENROLL, **others}


def _nested(levels: int) -> bytes:
    """Return a table of AMQP in a table in a table."""
    table = b""
    for _ in range(levels):
        table = b"\x01aF" + pack(">I", len(table)) + table
    return pack(">I", len(table)) + table


class _Raw:
    """Properties as they are on the wire, whatever they are."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw


BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "no headers": ("not_a_message", {"body": BODY}),
    "no id": ("not_a_message", {"body": BODY, "headers": {"task": ENROLL}}),
    "an id that is no text": ("not_a_message", {"body": BODY, "headers": {"task": ENROLL, "id": {"a": 1}}}),
    "an unknown task": ("unknown_task", {"body": BODY, "headers": {"task": "enrollment.enrol.v1", "id": "a"}}),
    "a task of Celery's own": ("unknown_task", {"body": BODY, "headers": {"task": "celery.chord", "id": "b"}}),
    "an empty body": ("undecodable_body", {"body": b"", "headers": headers()}),
    "noise": ("undecodable_body", {"body": bytes(range(256)), "headers": headers()}),
    "no list": ("undecodable_body", {"body": '{"a": 1}', "headers": headers()}),
    "deep JSON": ("undecodable_body", {"body": "[" * 100_000, "headers": headers()}),
    "NaN": ("undecodable_body", {"body": '[[], {"student_id": NaN}, {}]', "headers": headers()}),
    "pickle": (
        "undecodable_body",
        {"body": b"\x80\x04N.", "headers": headers(), "content_type": "application/x-python-serialize"},
    ),
    "a content type without end": (
        "undecodable_body",
        {"body": BODY, "headers": headers(), "content_type": "x" * 255},
    ),
    "an unknown encoding": ("undecodable_body", {"body": BODY, "headers": headers(), "content_encoding": "rot13"}),
    "a bomb": (
        "undecodable_body",
        {
            "body": zlib.compress(b"[" + b" " * 50_000_000 + b"]", 9),
            "headers": headers(compression="gzip"),
            "content_encoding": "binary",
        },
    ),
    "an unknown compression": ("undecodable_body", {"body": BODY, "headers": headers(compression="rar")}),
    "a bad expiry": ("not_a_message", {"body": BODY, "headers": headers(expires="never")}),
    "headers of 100 kB": (
        "not_a_message",
        {"body": BODY, "headers": {"task": ENROLL, "x" * 200: "y" * 100_000}},
    ),
    "headers a hundred levels deep": ("not_a_message", {"body": BODY, "headers": _Raw(_nested(100))}),
    "headers ten thousand levels deep": ("not_a_message", {"body": BODY, "headers": _Raw(_nested(10_000))}),
}


def test_no_message_stops_the_worker_and_each_broken_one_is_kept_under_its_code(
    rabbit: RabbitBroker, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = start()
    content: Any = GenericContent
    stock = content._serialize_properties

    def serialize(message: Any) -> Any:
        told = message.properties.get("application_headers")
        raw = told.pop("raw", None) if isinstance(told, dict) else None
        return stock(message) if raw is None else pack(">H", 0x2000) + raw

    monkeypatch.setattr(GenericContent, "_serialize_properties", serialize)
    sent = rabbit.send(count=6, task=APPLY)
    for _, message in BROKEN.values():
        told = message.get("headers")
        rabbit.publish(**{**message, "headers": {"raw": told.raw} if isinstance(told, _Raw) else told})
        sent += rabbit.send()
    eventually(lambda: rabbit.has_applied(len(sent)) or not worker.child.running)
    eventually(lambda: len(rabbit.dead_lettered()) == len(BROKEN) or not worker.child.running)
    assert dict(zip(BROKEN, rabbit.dead_lettered(), strict=True)) == {name: code for name, (code, _) in BROKEN.items()}
    assert sorted(rabbit.applied()) == sorted(sent)
    assert max(len(set(batch) & set(sent[:6])) for batch in rabbit.batches()) <= 4
    assert "Trying to re-establish" not in worker.said
    worker.child.stop()
    assert [rabbit.count(queue) for queue in QUEUES] == [0, 0]  # all of them were acknowledged


def test_a_message_that_kills_its_workers_is_a_dead_letter_and_those_beside_it_are_applied(
    rabbit: RabbitBroker, start: Callable[..., Worker]
) -> None:
    worker = start()
    assert "Global QoS is disabled" in worker.said  # they are quorum queues
    rabbit.redis.set("fake:busy", "1")
    (first,) = rabbit.send()
    eventually(lambda: rabbit.batches("fake:begun"))
    good = rabbit.send(count=20)
    (bad,) = rabbit.send(source="die")
    good += rabbit.send(count=20)
    eventually(lambda: rabbit.count(QUEUES[0]) == 0)  # all are on their way to the worker
    rabbit.redis.delete("fake:busy")
    worker.wait()
    assert rabbit.batches("fake:begun") == [[first], [*good[:20], bad, *good[20:]]]  # all that waited is one batch
    worker = start()
    worker.wait()
    key = f"{{enrollment.events}}:begun:{rabbit.keys_begun(bad)[-1]}"
    assert rabbit.redis.incrby(key, DELIVERIES - 1) == DELIVERIES  # as after two more, each with nothing else
    start()
    eventually(rabbit.dead_lettered)
    eventually(lambda: rabbit.has_applied(41))
    assert rabbit.dead_lettered() == ["too_many_deliveries"]
    assert set(rabbit.applied()) == {first, *good}
    eventually(lambda: not rabbit.redis.keys("*begun:*"))
