"""Commands that end others which wait."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Engine

from enrollment.names import ENROLL, WITHDRAW
from tasks.messages import Message
from tests.integration.conftest import message
from tests.integration.locked import held, release_all
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]
Load = Callable[[str], None]
Events = Callable[[], list[dict[str, Any]]]
LATER = "2999-01-01T00:00:00Z"


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
