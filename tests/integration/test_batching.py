"""The real worker process with a service that only writes down what it is asked to do (tests/fake_worker.py)."""

import json
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from os import kill
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from celery import Celery
from kombu import Connection
from redis import Redis

from tests.fake_worker import app as fake_app
from worker.local.process import Child
from worker.local.redis import Redis as RedisServer

ENROLL, APPLY = "enrollment.enroll.v1", "enrollment.apply.v1"
ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], object], timeout: float = 20) -> None:
    """Wait for a condition to hold."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


class Worker:
    """A worker process, started and ready."""

    def __init__(self, url: str, log: Path, *options: str) -> None:
        command = [sys.executable, "-m", "celery", "-A", "tests.fake_worker", "-b", url, "worker", "-l", "INFO"]
        self.log = log
        self.child = Child(
            name="worker",
            command=[*command, "--without-mingle", "--without-gossip", f"-n{uuid4().hex}@%h", *options],
            log=log,
            cwd=ROOT,
        )
        self.start()

    def start(self) -> None:
        self.log.write_bytes(b"")
        self.child.start()
        until(lambda: " ready." in self.said or not self.child.running)

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        kill(self.child.pid, number)

    def wait(self, timeout: float = 20) -> float:
        """Wait for it to end; return the seconds that took."""
        begin = time.monotonic()
        until(lambda: not self.child.running, timeout)
        return time.monotonic() - begin


@pytest.fixture
def start(redis_url: str, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Give a function that starts workers; they are killed in the end."""
    workers: list[Worker] = []

    def start_worker(*options: str) -> Worker:
        workers.append(Worker(redis_url, tmp_path / f"worker{len(workers)}.log", *options))
        return workers[-1]

    yield start_worker
    for worker in workers:
        print(worker.log.name, worker.said[-6000:])  # noqa: T201 (pytest shows it when the test fails)
        worker.child.kill()


class Broker:
    """What the test sees of the other side: it sends, and reads what the service wrote down."""

    def __init__(self, url: str, app: Celery) -> None:
        self.redis: Any = Redis.from_url(url, decode_responses=True)
        self.app: Any = app

    def send(self, count: int = 1, task: str = ENROLL, **kwargs: Any) -> list[str]:
        options = {name: kwargs.pop(name) for name in ("expires", "priority", "task_id", "link") if name in kwargs}
        return [str(self.app.send_task(task, kwargs={"student_id": 1, **kwargs}, **options)) for _ in range(count)]

    def push(self, *, queue: str = "enrollment", **changes: Any) -> None:
        headers = {"id": str(uuid4()), "task": ENROLL, **changes.pop("headers", {})}
        message = {"headers": headers, "body": "[[], {}, {}]", "content-type": "application/json", **changes}
        self.redis.lpush(queue, json.dumps(message))

    def batches(self, key: str = "fake:applied") -> list[list[str]]:
        return [[message["id"] for message in json.loads(batch)] for batch in self.redis.lrange(key, 0, -1)]

    def applied(self) -> list[str]:
        return [id_ for batch in self.batches() for id_ in batch]

    def has_applied(self, count: int) -> bool:
        return len(set(self.applied())) >= count

    def keys_begun(self, task_id: str) -> list[str]:
        batches = self.redis.lrange("fake:begun", 0, -1)
        return [m["key"] for batch in batches for m in json.loads(batch) if m["id"] == task_id]

    def buried(self) -> list[str]:
        return [json.loads(letter)["code"] for letter in self.redis.lrange("fake:buried", 0, -1)]

    def at_rest(self) -> bool:
        """Tell whether nothing waits and nothing is claimed."""
        return not any(
            self.redis.exists(key) for key in ("enrollment", "enrollment.bulk", "unacked", "unacked_index")
        ) and not self.redis.exists("unacked_deliveries")


@pytest.fixture
def broker(redis_url: str) -> Iterator[Broker]:
    fake_app.conf.update(broker_url=redis_url, broker_read_url=redis_url, broker_write_url=redis_url)
    made = Broker(redis_url, fake_app)
    yield made
    made.redis.close()
    fake_app.close()


# --- batches


def test_an_idle_worker_starts_at_once_and_a_busy_one_gathers(broker: Broker, start: Callable[..., Worker]) -> None:
    start()
    broker.redis.set("fake:slow", "0.5")
    (first,) = broker.send()
    until(lambda: broker.batches("fake:begun") == [[first]], timeout=0.4)
    rest = broker.send(count=30)
    until(lambda: broker.batches() == [[first], rest])
    until(broker.at_rest)


def test_bulk_messages_take_turns_with_single_ones(broker: Broker, start: Callable[..., Worker]) -> None:
    bulk = broker.send(count=12, task=APPLY)
    single = broker.send(count=250)
    start()
    until(lambda: len(broker.applied()) == 262)
    batches = broker.batches()
    assert max(len(set(batch) & set(bulk)) for batch in batches) == 4
    assert [id_ for batch in batches for id_ in batch if id_ in set(single)] == single
    assert set(batches[0]) & set(single)


def test_a_message_of_a_priority_is_found_within_the_tick(broker: Broker, start: Callable[..., Worker]) -> None:
    start()
    sent = broker.send(priority=9)
    until(lambda: broker.applied() == sent, timeout=2)


def test_events_tell_of_each_command_and_remote_control_answers(broker: Broker, start: Callable[..., Worker]) -> None:
    start("-E")
    events: list[dict[str, Any]] = []
    with broker.app.connection() as connection:
        receiver = broker.app.events.Receiver(connection, handlers={"*": events.append})
        capture = threading.Thread(target=_capture, args=(receiver,))
        capture.start()
        until(lambda: any(event["type"] == "worker-heartbeat" for event in events))
        (good,) = broker.send(course_ids=list(range(1000)))
        (bad,) = broker.send(source="fail")
        until(lambda: {e["type"] for e in events if e.get("uuid") == bad} >= {"task-failed"})
        receiver.should_stop = True
        capture.join()
    kinds = [event["type"] for event in events if event.get("uuid") == good]
    assert kinds == ["task-received", "task-started", "task-succeeded"]
    received, _, succeeded = (event for event in events if event.get("uuid") == good)
    assert succeeded["result"] == "applied"
    assert len(received["kwargs"]) <= 100
    assert received["name"] == ENROLL
    (stats,) = broker.app.control.inspect(timeout=2).stats().values()
    assert stats["total"] == {ENROLL: 2}


def _capture(receiver: Any) -> None:
    with suppress(OSError):
        receiver.capture(limit=None, timeout=None, wakeup=True)


def test_nothing_a_producer_puts_beside_the_arguments_is_run(broker: Broker, start: Callable[..., Worker]) -> None:
    start()
    sent = broker.send(link=broker.app.signature(ENROLL, kwargs={"student_id": 2}))
    broker.push(headers={"timelimit": "soon", "eta": "never", "retries": "many"})
    until(lambda: len(broker.applied()) == 2)
    time.sleep(0.5)
    assert broker.applied()[0] == sent[0]
    assert (len(broker.applied()), broker.buried()) == (2, [])
    assert broker.at_rest()


def test_a_queue_can_be_left_and_joined_while_the_worker_runs(broker: Broker, start: Callable[..., Worker]) -> None:
    worker = start()
    broker.app.control.cancel_consumer("enrollment.bulk", reply=True, timeout=2)
    bulk = broker.send(task=APPLY)
    sent = broker.send(count=3)
    until(lambda: sorted(broker.applied()) == sorted(sent))
    time.sleep(2.5)
    assert broker.redis.llen("enrollment.bulk") == 1
    broker.app.control.add_consumer("enrollment.bulk", reply=True, timeout=2)
    until(lambda: sorted(broker.applied()) == sorted(sent + bulk))
    assert "Trying to re-establish" not in worker.said


# --- what never becomes a command

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
    until(lambda: broker.applied() == sent)
    until(broker.at_rest)
    assert broker.buried() == []


def test_what_is_not_a_command_becomes_a_dead_letter_and_stops_nothing(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    worker = start("-E")
    for changes, _ in DEAD.values():
        broker.push(**{k: v for k, v in changes.items() if k != "headers" or v is not None} | _no_headers(changes))
    broker.redis.lpush("enrollment", "hello")
    until(lambda: len(broker.buried()) == len(DEAD) + 1)
    sent = broker.send()
    until(lambda: broker.applied() == sent)
    assert Counter(broker.buried()) == Counter([code for _, code in DEAD.values()] + ["not_a_message"])
    until(broker.at_rest)
    assert "Trying to re-establish" not in worker.said


def _no_headers(changes: dict[str, Any]) -> dict[str, Any]:
    return {"headers": {"id": None}} if changes.get("headers", 0) is None else {}


def test_revoked_and_expired_commands_are_kept_and_not_applied(broker: Broker, start: Callable[..., Worker]) -> None:
    start()
    revoked = str(uuid4())
    broker.app.control.revoke(revoked)
    time.sleep(0.5)
    broker.send(task_id=revoked)
    broker.send(expires=datetime.now(UTC) - timedelta(seconds=1))
    sent = broker.send(expires=60)
    until(lambda: sorted(broker.buried()) == ["expired", "revoked"])
    until(lambda: broker.applied() == sent)
    until(broker.at_rest)


def test_a_batch_that_raises_comes_again_then_one_by_one_and_ends_as_a_dead_letter(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    start()
    broker.redis.set("fake:slow", "0.5")
    broker.send()
    (bad,) = broker.send(source="raise")
    good = broker.send(count=3)
    until(lambda: set(broker.applied()) >= set(good), timeout=20)
    until(lambda: broker.buried() == ["too_many_deliveries"], timeout=40)
    assert len(set(broker.keys_begun(bad))) == 1
    assert all(len(batch) == 1 for batch in broker.batches("fake:begun")[3:])
    until(broker.at_rest)


# --- deaths


def test_a_message_that_kills_its_worker_takes_nobody_with_it(broker: Broker, start: Callable[..., Worker]) -> None:
    good = broker.send(count=5)
    (killer,) = broker.send(source="die")
    good += broker.send(count=5)
    worker = start()
    deaths = 0
    while not broker.buried() or len(broker.applied()) < 10:
        worker.wait(timeout=30) if not broker.buried() else time.sleep(0.1)
        if not worker.child.running:
            deaths += 1
            worker.start()
            until(lambda: not worker.child.running or bool(broker.buried()), timeout=30)
    until(broker.at_rest)
    assert sorted(broker.applied()) == sorted(good)
    assert broker.buried() == ["too_many_deliveries"]
    assert deaths == 4
    assert len(set(broker.keys_begun(killer))) == 1


def test_nothing_is_lost_when_workers_are_killed_under_load(broker: Broker, start: Callable[..., Worker]) -> None:
    broker.redis.set("fake:slow", "0.02")
    sent: list[str] = []
    for round_ in range(6):
        worker = start()
        sent += broker.send(count=300)
        until(partial(broker.has_applied, 100 * round_ + 20))
        time.sleep(0.013 * round_)
        worker.signal(signal.SIGKILL)
        worker.wait()
    start()
    until(lambda: set(broker.applied()) == set(sent), timeout=40)
    until(broker.at_rest)
    assert broker.buried() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["SIGTERM", "SIGQUIT"])
def test_a_shutdown_finishes_the_batch_and_leaves_the_rest_in_the_queue(
    number: signal.Signals, broker: Broker, start: Callable[..., Worker]
) -> None:
    worker = start()
    broker.redis.set("fake:slow", "1")
    sent = broker.send()
    until(lambda: broker.batches("fake:begun") == [sent])
    broker.send(count=7)
    worker.signal(number)
    assert worker.wait() < 3
    assert broker.applied() == sent
    assert (broker.redis.llen("enrollment"), broker.redis.exists("unacked")) == (7, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["SIGTERM", "SIGQUIT"])
def test_a_worker_that_waits_for_the_database_shuts_down_and_the_next_goes_on_under_the_same_keys(
    number: signal.Signals, broker: Broker, start: Callable[..., Worker]
) -> None:
    broker.redis.set("fake:away", "1")
    sent = broker.send(count=3)
    worker = start()
    until(lambda: broker.batches("fake:begun") == [sent])
    worker.signal(number)
    assert worker.wait() < 5
    assert broker.applied() == []
    broker.redis.delete("fake:away")
    start()
    until(lambda: broker.applied() == sent, timeout=3)
    assert all(len(set(broker.keys_begun(id_))) == 1 for id_ in sent)
    until(broker.at_rest)


def test_a_batch_that_waits_longer_than_the_visibility_timeout_stays_with_its_worker(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    broker.redis.set("fake:away", "1")
    sent = broker.send(count=3)
    start()
    until(lambda: broker.batches("fake:begun") == [sent])
    start()
    time.sleep(5)
    broker.redis.delete("fake:away")
    until(lambda: len(broker.applied()) == 3)
    time.sleep(4)
    assert broker.applied() == sent
    assert broker.at_rest()


# --- the broker


def test_cut_connections_are_made_anew(broker: Broker, start: Callable[..., Worker]) -> None:
    worker = start()
    sent: list[str] = []
    for _ in range(5):
        sent += broker.send(count=20)
        broker.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(0.3)
    until(lambda: set(broker.applied()) == set(sent))
    until(broker.at_rest)
    assert worker.child.running


def test_a_broker_that_is_killed_and_comes_back_is_waited_for(
    broker: Broker, start: Callable[..., Worker], redis: RedisServer
) -> None:
    worker = start()
    sent = broker.send(count=20)
    until(lambda: len(broker.applied()) == 20)
    redis.kill()
    time.sleep(2)
    redis.start()
    sent += broker.send(count=20)
    until(lambda: set(broker.applied()) == set(sent), timeout=40)
    until(broker.at_rest)
    assert worker.child.running


def test_a_network_that_swallows_everything_for_ten_seconds_is_survived(
    broker: Broker, start: Callable[..., Worker], redis: RedisServer
) -> None:
    worker = start()
    kill(redis.pid, signal.SIGSTOP)
    try:
        until(lambda: "Trying to re-establish" in worker.said, timeout=12)
        time.sleep(3)
    finally:
        kill(redis.pid, signal.SIGCONT)
    sent = broker.send(count=20)
    until(lambda: sorted(broker.applied()) == sorted(sent), timeout=20)
    until(broker.at_rest)
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
