import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from tests.eventually import eventually
from tests.integration.consume.conftest import APPLY, ENROLL, Broker, Worker


def test_an_idle_worker_starts_at_once_and_a_busy_one_gathers(broker: Broker, start: Callable[..., Worker]) -> None:
    start()
    broker.redis.set("fake:busy", "1")
    (first,) = broker.send()
    eventually(lambda: broker.batches("fake:begun") == [[first]])
    rest = broker.send(count=30)
    broker.redis.delete("fake:busy")
    eventually(lambda: broker.batches() == [[first], rest])
    eventually(broker.at_rest)


def test_bulk_messages_take_turns_with_single_ones(broker: Broker, start: Callable[..., Worker]) -> None:
    bulk = broker.send(count=12, task=APPLY)
    single = broker.send(count=250)
    start()
    eventually(lambda: len(broker.applied()) == 262)
    batches = broker.batches()
    assert max(len(set(batch) & set(bulk)) for batch in batches) == 4
    assert [id_ for batch in batches for id_ in batch if id_ in set(single)] == single
    assert set(batches[0]) & set(single)


def test_a_message_of_a_priority_is_found_within_the_tick(broker: Broker, start: Callable[..., Worker]) -> None:
    start()
    sent = broker.send(priority=9)
    eventually(lambda: broker.applied() == sent)


def test_events_tell_of_each_command_and_remote_control_answers(broker: Broker, start: Callable[..., Worker]) -> None:
    start("-E")
    with _events(broker) as events:
        (good,) = broker.send(course_ids=list(range(1000)))
        (bad,) = broker.send(source="fail")
        eventually(lambda: {e["type"] for e in events if e.get("uuid") == bad} >= {"task-failed"})
    kinds = [event["type"] for event in events if event.get("uuid") == good]
    assert kinds == ["task-received", "task-started", "task-succeeded"]
    received, _, succeeded = (event for event in events if event.get("uuid") == good)
    assert succeeded["result"] == "applied"
    assert len(received["kwargs"]) <= 100
    assert received["name"] == ENROLL
    (stats,) = broker.app.control.inspect(timeout=20, limit=1).stats().values()
    assert stats["total"] == {ENROLL: 2}


def test_task_events_are_not_made_while_nobody_listens_and_are_there_soon_after(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    start("-E")
    _applied(broker)
    began, published = time.monotonic(), _published(broker)
    for _ in range(50):
        _applied(broker)
    most = 5 + 2 * (time.monotonic() - began)  # heartbeats, and once a second what nobody heard
    assert _published(broker) - published < most
    sent: list[str] = []
    with _events(broker) as events:

        def heard() -> bool:
            sent.extend(_applied(broker))
            told = [[event["type"] for event in events if event.get("uuid") == id_] for id_ in sent]
            return ["task-received", "task-started", "task-succeeded"] in told

        eventually(heard)


def _applied(broker: Broker) -> list[str]:
    sent = broker.send()
    eventually(lambda: set(sent) <= set(broker.applied()))
    return sent


def _published(broker: Broker) -> int:
    return int(broker.redis.info("commandstats")["cmdstat_publish"]["calls"])


def test_what_is_refused_or_expired_is_told_though_nothing_else_is_going_on(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    start("-E")
    with _events(broker) as events:
        broker.push(headers={"task": "enrollment.enrol.v1", "id": "misspelt"})
        (late,) = broker.send(expires=datetime(2026, 1, 1, tzinfo=UTC))
        eventually(lambda: {"misspelt", late} <= {event.get("uuid") for event in events})
    assert [event["type"] for event in events if event.get("uuid") == late][-1] == "task-revoked"


def test_a_header_that_cannot_be_written_as_text_silences_nobody(broker: Broker, start: Callable[..., Worker]) -> None:
    broker.push(headers={"argsrepr": "half a character: \ud800", "root_id": ["\ud800"], "kwargsrepr": 7})
    sent = broker.send(count=5)
    with _events(broker, running=False) as events:
        start("-E")
        eventually(lambda: set(sent) <= {e.get("uuid") for e in events if e["type"] == "task-succeeded"})
    assert any("half a character" in event.get("args", "") for event in events)


@contextmanager
def _events(broker: Broker, *, running: bool = True) -> Iterator[list[dict[str, Any]]]:
    """Give what a stock receiver hears meanwhile."""
    events: list[dict[str, Any]] = []
    with broker.app.connection() as connection:
        receiver = broker.app.events.Receiver(connection, handlers={"*": events.append})
        capture = threading.Thread(target=_capture, args=(receiver,))
        capture.start()
        eventually(lambda: events if running else broker.redis.pubsub_numpat())  # a worker answers with a heartbeat
        yield events
        receiver.should_stop = True
        capture.join()


def _capture(receiver: Any) -> None:
    with suppress(OSError):
        receiver.capture(limit=None, timeout=None, wakeup=True)


def test_nothing_a_producer_puts_beside_the_arguments_is_run(broker: Broker, start: Callable[..., Worker]) -> None:
    start()
    sent = broker.send(link=broker.app.signature(ENROLL, kwargs={"student_id": 2}))
    broker.push(headers={"timelimit": "soon", "eta": "never", "retries": "many"})
    eventually(lambda: len(broker.applied()) == 2)
    time.sleep(0.5)
    assert broker.applied()[0] == sent[0]
    assert (len(broker.applied()), broker.dead_lettered()) == (2, [])
    eventually(broker.at_rest)


def test_a_queue_can_be_left_and_joined_while_the_worker_runs(broker: Broker, start: Callable[..., Worker]) -> None:
    worker = start()
    broker.app.control.cancel_consumer("enrollment.bulk", reply=True, limit=1, timeout=20)
    bulk = broker.send(task=APPLY)
    sent = broker.send(count=3)
    eventually(lambda: sorted(broker.applied()) == sorted(sent))
    time.sleep(1)  # several claims
    assert broker.redis.llen("enrollment.bulk") == 1
    broker.app.control.add_consumer("enrollment.bulk", reply=True, limit=1, timeout=20)
    eventually(lambda: sorted(broker.applied()) == sorted(sent + bulk))
    assert "Trying to re-establish" not in worker.said
