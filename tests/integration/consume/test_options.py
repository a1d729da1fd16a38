"""Producers with other transport options, as Celery's manual shows them: every message is applied, or reported."""

import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from redis import Redis
from typer.testing import CliRunner

from enrollment.client import Client
from enrollment.names import ENROLL
from tests.eventually import eventually
from tests.integration.consume.conftest import Broker, Worker
from worker.cli.app import app as cli
from worker.lists import lists_of, read_by, unread

OPTIONS: dict[str, dict[str, Any]] = {
    "all ten steps": {"priority_steps": list(range(10))},
    "a separator": {"sep": ":", "queue_order_strategy": "priority"},
    "all three": {"sep": "/", "priority_steps": [0, 5], "global_keyprefix": "school."},
}


Doctor = Callable[[], list[dict[str, str]]]


@pytest.fixture
def doctor(redis_url: str, nobody_answers: None) -> Doctor:
    """Give what `doctor` finds, but for workers."""

    def findings() -> list[dict[str, str]]:
        done = CliRunner().invoke(cli, ["doctor", "--json"], env={"ENROLLMENT_BROKER_URL": redis_url})
        return [json.loads(line) for line in done.stdout.splitlines()]

    return findings


def producer(url: str, options: dict[str, Any]) -> Any:
    app = Celery("portal", broker=url, set_as_current=False)
    app.conf.update(broker_transport_options=options, task_ignore_result=True)
    return app


def send(url: str, options: dict[str, Any]) -> list[str]:
    """Send a command with each priority, as stock Celery does."""
    with producer(url, options).connection_for_write() as line:
        return [
            str(
                producer(url, options).send_task(
                    ENROLL, kwargs={"student_id": 1}, queue="enrollment", priority=priority, connection=line
                )
            )
            for priority in range(10)
        ]


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_worker_that_is_told_the_options_of_a_producer_applies_everything(
    broker: Broker,
    start: Callable[..., Worker],
    redis_url: str,
    options: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FAKE_OPTIONS", json.dumps(options))
    start()
    sent = send(redis_url, options)
    with Client(redis_url, transport_options=options) as client:
        sent.append(str(client.enroll(1, [1])))
    eventually(lambda: sorted(broker.applied()) == sorted(sent))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_worker_that_is_told_nothing_applies_or_reports_everything(
    broker: Broker, start: Callable[..., Worker], redis_url: str, doctor: Doctor, options: dict[str, Any]
) -> None:
    sent = send(redis_url, options)
    worker = start()
    read, there = read_by(["enrollment"]), {key: broker.redis.llen(key) for key in broker.redis.scan_iter(_type="list")}
    left = sum(length for key, length in there.items() if "enrollment" in key and key not in read)
    eventually(lambda: len(broker.applied()) == len(sent) - left)
    found = [line for line in doctor() if "is read by no worker" in line["message"]]
    assert sum(int(line["message"].split(" has ")[1].split()[0]) for line in found) == left
    if left:
        eventually(lambda: "lists_not_read" in worker.said)
        told = json.loads(found[-1]["advice"].split("ENROLLMENT_BROKER_OPTIONS='")[1].removesuffix("'"))
        assert told.items() <= options.items()


def test_all_lists_are_those_of_kombu() -> None:
    assert lists_of("q")[:3] == ["q", "q\x06\x161", "q\x06\x162"]
    assert lists_of("q", ":")[:3] == ["q", "q:1", "q\x06\x161"]


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("enrollment:3", {"sep": ":"}),
        ("enrollment.bulk--9", {"sep": "--"}),
        ("school:enrollment", {"global_keyprefix": "school:"}),
        ("school:enrollment.bulk\x06\x163", {"global_keyprefix": "school:"}),
        ("a\nb:enrollment|1", {"global_keyprefix": "a\nb:", "sep": "|"}),
    ],
)
def test_a_list_that_belongs_to_a_queue_by_its_name_is_found(key: str, options: dict[str, str]) -> None:
    [found] = unread({key: 7}, ["enrollment", "enrollment.bulk"], read_by(["enrollment", "enrollment.bulk"]))
    assert (found.key, found.messages, found.options) == (key, 7, options)


@pytest.mark.parametrize(
    "key", ["enrollment", "enrollment\x06\x164", "preenrollment", "enrollments", "enrollment:10", "enrollment.other"]
)
def test_other_lists_are_none_of_ours(key: str) -> None:
    assert unread({key: 7}, ["enrollment", "enrollment.bulk"], read_by(["enrollment", "enrollment.bulk"])) == []


def test_a_key_that_is_no_text_stops_neither_worker_nor_doctor(
    broker: Broker, start: Callable[..., Worker], redis_url: str, doctor: Doctor
) -> None:
    with Redis.from_url(redis_url) as raw:
        raw.lpush(b"\xff\xfe:enrollment", b"x")
        raw.set("enrollment\x06\x163", "no list")
    start()
    sent = broker.send(task_id=str(uuid4()))
    eventually(lambda: broker.applied() == sent)
    found = {line["message"]: line["status"] for line in doctor()}
    assert found["the key 'enrollment\\x06\\x163' is a string, not a list"] == "fail"
    assert any("xff" in message for message in found)
