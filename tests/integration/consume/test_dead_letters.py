import json
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from tests.eventually import eventually
from tests.integration.consume.conftest import ENROLL, Broker, Worker

DEAD: dict[str, tuple[dict[str, Any], str]] = {
    "unknown task": ({"headers": {"task": "enrollment.enrol.v1"}}, "unknown_task"),
    "built-in task": ({"headers": {"task": "celery.map"}}, "unknown_task"),
    "no task": ({"headers": {"task": None}}, "not_a_message"),
    "protocol 1": ({"headers": None, "body": json.dumps({"task": ENROLL, "id": "1", "args": []})}, "not_a_message"),
    "body not JSON": ({"body": "{"}, "undecodable_body"),
    "body not base64": ({"body": "a", "properties": {"body_encoding": "base64"}}, "undecodable_body"),
    "body not arguments": ({"body": '{"student_id": 1}'}, "undecodable_body"),
    "arguments not a list": ({"body": '["12", {}, {}]'}, "undecodable_body"),
    "keywords not an object": ({"body": "[[], [], {}]"}, "undecodable_body"),
    "NaN": ({"body": "[[NaN], {}, {}]"}, "undecodable_body"),
    "5,000 digits": ({"body": f"[[{'9' * 5000}], {{}}, {{}}]"}, "undecodable_body"),
    "100,000 deep": ({"body": "[" * 100_000}, "undecodable_body"),
    "pickle": ({"content-type": "application/x-python-serialize"}, "undecodable_body"),
    "no content type": ({"content-type": None}, "undecodable_body"),
    "content type that is a list": ({"content-type": ["application/json"]}, "undecodable_body"),
    "unknown encoding": ({"content-encoding": "ebcdic"}, "undecodable_body"),
    "unknown compression": ({"headers": {"compression": "rot13"}}, "undecodable_body"),
    "compression that is none": ({"headers": {"compression": "gzip"}}, "undecodable_body"),
    "bad expiry": ({"headers": {"expires": "tomorrow"}}, "not_a_message"),
    "expiry that is a list": ({"headers": {"expires": []}}, "not_a_message"),
}


def test_whatever_the_message_of_the_relay_says_it_is_done_with_at_once(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    start()
    task = "enrollment.relay.v1"
    for changes in ({"timelimit": "x"}, {"eta": "2999-01-01T00:00:00+00:00"}, {"expires": "x"}):
        broker.push(headers={"task": task, **changes})
    broker.push(headers={"task": task}, body="7")
    sent = broker.send()
    eventually(lambda: broker.applied() == sent)
    eventually(broker.at_rest)
    assert broker.dead_lettered() == []


def test_what_is_not_a_command_becomes_a_dead_letter_and_stops_nothing(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    worker = start("-E")
    for changes, _ in DEAD.values():
        broker.push(**{k: v for k, v in changes.items() if k != "headers" or v is not None} | _no_headers(changes))
    broker.redis.lpush("enrollment", "hello")
    eventually(lambda: len(broker.dead_lettered()) == len(DEAD) + 1)
    sent = broker.send()
    eventually(lambda: broker.applied() == sent)
    assert Counter(broker.dead_lettered()) == Counter([code for _, code in DEAD.values()] + ["not_a_message"])
    eventually(broker.at_rest)
    assert "Trying to re-establish" not in worker.said


def _no_headers(changes: dict[str, Any]) -> dict[str, Any]:
    return {"headers": {"id": None}} if changes.get("headers", 0) is None else {}


def test_revoked_and_expired_commands_are_kept_and_not_applied(broker: Broker, start: Callable[..., Worker]) -> None:
    start()
    revoked = str(uuid4())
    broker.app.control.revoke(revoked, reply=True, limit=1, timeout=20)
    broker.send(task_id=revoked)
    broker.send(expires=datetime.now(UTC) - timedelta(seconds=1))
    sent = broker.send(expires=60)
    eventually(lambda: sorted(broker.dead_lettered()) == ["expired", "revoked"])
    eventually(lambda: broker.applied() == sent)
    eventually(broker.at_rest)


def test_a_batch_that_raises_comes_again_then_one_by_one_and_ends_as_a_dead_letter(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    start()
    broker.redis.set("fake:busy", "1")
    (first,) = broker.send()
    eventually(lambda: broker.batches("fake:begun") == [[first]])
    (bad,) = broker.send(source="raise")
    good = broker.send(count=3)
    broker.redis.delete("fake:busy")
    for attempts in range(1, 5):
        eventually(lambda: len(broker.keys_begun(bad)) >= attempts)  # noqa: B023 (called at once)
        broker.expire()
    eventually(lambda: broker.dead_lettered() == ["too_many_deliveries"])
    eventually(broker.at_rest)
    together = [bad, *good]
    assert broker.batches("fake:begun")[:3] == [[first], together, together]
    assert all(len(batch) == 1 for batch in broker.batches("fake:begun")[3:])
    assert sorted(broker.applied()) == sorted([first, *good])
    assert len(set(broker.keys_begun(bad))) == 1
