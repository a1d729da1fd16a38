"""Commands that end others which wait."""

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from enrollment.names import ENROLL, WITHDRAW
from tasks.arrival import Arrival
from tasks.caution import How
from tasks.messages import Message, units_of
from tasks.transaction import run
from tests.integration.conftest import message
from tests.integration.locked import held, release_all
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]
Load = Callable[[str], None]
Events = Callable[[], list[dict[str, Any]]]
LATER = "2999-01-01T00:00:00Z"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def kinds(events: Events, command_id: str) -> list[str]:
    return [event["type"].split(".")[1] for event in events() if event["id"] == command_id]


def withdraw(target: str, **more: Any) -> Message:
    return message(WITHDRAW, target=target, **more)


def test_a_command_that_waits_can_be_withdrawn_and_one_that_does_not_any_more_cannot(
    service: Service, rows: Rows, events: Events, load: Load
) -> None:
    waiting, done = message(ENROLL, 1, [99], wait_until=LATER), message(ENROLL, 1, [10])
    service.handle([waiting, done])
    ends = [withdraw(waiting.task_id), withdraw(done.task_id), withdraw(waiting.task_id, source="again")]
    assert service.handle(ends) == ["applied", "rejected already_decided [target]", "applied"]
    assert service.handle(ends) == ["repeat"] * 3
    load("INSERT INTO courses (id) VALUES (99)")
    release_all(service)
    assert rows("course_id", "student_courses") == [(10,)]
    assert kinds(events, waiting.task_id) == ["waiting", "withdrawn"]
    assert [kinds(events, end.task_id) for end in ends] == [["applied"], ["rejected"], ["applied"]]
    told = {event["id"]: event["data"] for event in events()}
    assert told[ends[0].task_id]["target"] == waiting.task_id
    assert told[waiting.task_id]["course_ids"] == [99]
    assert "it was applied" in told[ends[1].task_id]["errors"][0]["message"]
    assert service.handle([waiting]) == ["repeat"]


def test_a_withdraw_that_overtakes_its_command_works_all_the_same(service: Service, rows: Rows, events: Events) -> None:
    sent = [message(ENROLL, n, [10]) for n in (1, 2)]
    assert service.handle([withdraw(sent[0].task_id)]) == ["applied"]
    assert service.handle([withdraw(sent[1].task_id), *sent]) == ["applied", "repeat", "repeat"]
    assert not rows("*", "student_courses")
    assert [kinds(events, it.task_id) for it in sent] == [["withdrawn"]] * 2
    assert not rows("*", "dead_letters")


def test_a_withdraw_that_is_to_take_effect_later_is_refused(service: Service, rows: Rows) -> None:
    waiting = message(ENROLL, 1, [99], wait_until=LATER)
    service.handle([waiting])
    later = Message(WITHDRAW, str(uuid4()), "key", (), {"target": waiting.task_id}, {"eta": LATER})
    assert service.handle([later]) == ["rejected invalid_command [eta]"]
    assert rows("outcome", "commands ORDER BY outcome") == [("rejected",), ("waiting",)]


def test_what_waits_for_a_lock_can_be_withdrawn_too(
    service: Service, engine: Engine, rows: Rows, events: Events
) -> None:
    sent = message(ENROLL, 1, [10])
    with held(engine, "SELECT FROM students WHERE id = 1 FOR UPDATE"):
        service.handle([sent])
        assert service.handle([withdraw(sent.task_id)]) == ["applied"]
    release_all(service)
    assert (rows("*", "student_courses"), kinds(events, sent.task_id)) == ([], ["withdrawn"])


def test_what_is_being_decided_by_a_frozen_worker_is_withdrawn_later_and_others_go_on(
    service: Service, engine: Engine, rows: Rows, events: Events
) -> None:
    sent = message(ENROLL, 1, [99], wait_until=LATER)
    service.handle([sent])
    with held(engine, "SELECT FROM deferred_commands FOR UPDATE"):
        assert service.handle([message(ENROLL, 2, [10]), withdraw(sent.task_id)])[0] == "applied"
        assert kinds(events, sent.task_id) == ["waiting"]
    release_all(service)
    assert kinds(events, sent.task_id) == ["waiting", "withdrawn"]


def test_that_it_waited_is_told_before_that_it_is_withdrawn_though_its_worker_was_killed(
    service: Service, worker_engine: Engine, events: Events
) -> None:
    sent = message(ENROLL, 1, [10], effective_at=LATER)
    with worker_engine.connect() as connection:
        run(connection, units_of([sent]), Arrival(), How())  # and dies before it publishes
    service.handle([withdraw(sent.task_id)])
    service.relay(older_than=0)
    assert kinds(events, sent.task_id) == ["waiting", "withdrawn"]


@pytest.mark.parametrize(("student", "more"), [(2, {"effective_at": LATER}), (1, {})], ids=["waits", "is put off"])
def test_a_withdraw_under_the_id_of_another_command_is_refused_and_the_other_goes_on(
    service: Service, engine: Engine, rows: Rows, student: int, more: dict[str, str]
) -> None:
    sent = message(ENROLL, student, [10], **more)
    with held(engine, "SELECT FROM students WHERE id = 1 FOR UPDATE"):
        service.handle([sent])
        service.handle([withdraw(str(uuid4()), task_id=sent.task_id)])
    if not more:
        release_all(service)
    assert rows("code", "dead_letters") == [("command_id_reused",)]
    assert rows("outcome", "commands") == [("waiting",) if more else ("applied",)]


def test_the_trace_of_a_message_goes_on_in_the_events_of_a_withdraw(
    service: Service, engine: Engine, events: Events
) -> None:
    ids = [str(uuid4()) for _ in range(2)]
    sent = Message(ENROLL, ids[0], ids[0], (1, [10]), {}, {"traceparent": TRACE})
    with held(engine, "SELECT FROM students WHERE id = 1 FOR UPDATE"):
        service.handle([sent])
        service.handle([Message(WITHDRAW, ids[1], ids[1], (ids[0],), {}, {"traceparent": TRACE})])
    assert {event["id"]: event.get("traceparent") for event in events()} == dict.fromkeys(ids, TRACE)
