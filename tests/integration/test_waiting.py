"""Commands that wait for their student or course, and for their time, on real servers."""

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine

from enrollment.names import APPLY, ENROLL, REPLACE, UNENROLL
from enrollment.waiting import Policy
from models import awaited, ledger
from models.deferred import Reason, Wait
from tasks.messages import Message
from tests.eventually import eventually
from tests.integration.conftest import counted, message
from tests.integration.locked import held, release_all
from worker.publishing import Publisher
from worker.service import Service

pytestmark = pytest.mark.usefixtures("at_leisure")

Rows = Callable[..., list[tuple[Any, ...]]]
Load = Callable[[str], None]
Events = Callable[[], list[dict[str, Any]]]
LATER = "2999-01-01T00:00:00Z"


def kinds(events: Events, command_id: str) -> list[str]:
    return [event["type"].split(".")[1] for event in events() if event["id"] == command_id]


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_a_command_waits_for_its_student_and_courses_and_is_decided_when_all_are_there(
    service: Service, rows: Rows, events: Events, load: Load
) -> None:
    sent = message(ENROLL, 77, [10, 99, 98], wait_until=LATER)
    until = f"until {LATER}"
    assert service.handle([sent, sent]) == [
        f"waiting for unknown_student [77], unknown_courses [98, 99] {until}",
        "repeat",
    ]
    assert service.handle([sent]) == ["repeat"]
    other = Message(ENROLL, sent.task_id, "another delivery", (1, [10]), {})
    assert service.handle([other]) == ["dead letter command_id_reused"]
    [event] = events()
    assert event["type"] == "enrollment.waiting.v1"
    assert event["data"]["waiting_for"] == [
        {"code": "unknown_student", "ids": [77]},
        {"code": "unknown_courses", "ids": [98, 99]},
    ]
    assert (event["data"]["until"], event["data"]["errors"]) == (LATER, [])
    assert rows("outcome", "commands") == [("waiting",)]
    for statement in (
        "INSERT INTO students (id) VALUES (77)",
        "INSERT INTO courses (id) VALUES (99)",
    ):
        load(statement)
        service.release()
        assert rows("outcome", "commands") == [("waiting",)]
    load("INSERT INTO courses (id) VALUES (98)")
    release_all(service)
    assert rows("student_id, course_id", "student_courses") == [(77, 10), (77, 98), (77, 99)]
    assert kinds(events, sent.task_id) == ["waiting", "applied"]
    assert rows("outcome, waiting", "commands") == [("applied", None)]
    assert not rows("*", "outbox")
    assert service.handle([sent]) == ["repeat"]


def test_when_the_wait_is_over_the_command_is_rejected_with_the_codes_of_today(
    service: Service, rows: Rows, events: Events
) -> None:
    sent = message(ENROLL, 77, [99], wait_until=soon(4))
    assert service.handle([sent])[0].startswith("waiting")
    release_all(service)
    assert kinds(events, sent.task_id) == ["waiting", "rejected"]
    assert [error["code"] for error in events()[-1]["data"]["errors"]] == ["unknown_student", "unknown_courses"]


def test_a_deployment_lets_the_commands_of_a_source_wait(
    worker_engine: Engine, publisher: Publisher, service: Service, rows: Rows, load: Load
) -> None:
    service = Service(worker_engine, publisher, Policy(by_source={"portal": timedelta(hours=1)}))
    sent = [message(ENROLL, 1, [99], source=source) for source in ("portal", "other")]
    assert [outcome.split()[0] for outcome in service.handle(sent)] == ["waiting", "rejected"]
    load("INSERT INTO courses (id) VALUES (99)")
    release_all(service)
    assert rows("student_id, course_id", "student_courses") == [(1, 99)]


def test_nothing_happens_before_its_time_and_then_the_later_date_wins_whatever_was_sent_first(
    service: Service, rows: Rows, events: Events
) -> None:
    first, second = soon(5), soon(5.4)
    later = message(UNENROLL, 1, [10, 11], effective_at=second)
    earlier = message(REPLACE, 1, [10, 12], effective_at=first)
    assert service.handle([later, earlier]) == [
        f"waiting for effective_at until {at.replace('+00:00', 'Z')}" for at in (second, first)
    ]
    assert service.handle([message(ENROLL, 1, [11])]) == ["applied"]
    service.release()
    assert rows("course_id", "student_courses") == [(11,)]
    release_all(service)
    assert rows("course_id", "student_courses") == [(12,)]
    assert kinds(events, later.task_id) == kinds(events, earlier.task_id) == ["waiting", "applied"]
    applied = {event["id"]: event["data"]["issued_at"] for event in events()}
    assert applied[later.task_id] == second.replace("+00:00", "Z")


def test_a_late_command_is_ordered_by_when_it_was_to_take_effect(service: Service, rows: Rows) -> None:
    service.handle([message(ENROLL, 1, [10], issued_at="2026-01-02T00:00:00Z")])
    service.handle([message(UNENROLL, 1, [10], effective_at="2026-01-01T00:00:00Z")])
    assert rows("course_id", "student_courses") == [(10,)]


def test_an_eta_of_celery_is_when_the_command_takes_effect(service: Service, rows: Rows, events: Events) -> None:
    at = soon(5)  # later than handling takes, and waited for
    said = {"student_id": 1, "course_ids": [10]}
    bulk = {"commands": [{"command_id": str(uuid4()), "command": "enroll", "student_id": 2, "course_ids": [10]}]}
    sent = [
        Message(ENROLL, str(uuid4()), "a", (), said, {"eta": at}),
        Message(APPLY, str(uuid4()), "b", (), bulk, {"eta": at[:-6]}),  # without an offset it is UTC
        Message(ENROLL, str(uuid4()), "c", (), said, {"eta": "tomorrow"}),
        Message(ENROLL, str(uuid4()), "d", (), {**said, "effective_at": "2026-01-01T00:00:00Z"}, {"eta": at}),
    ]
    outcomes = service.handle(sent)
    assert [o.split()[0] for o in outcomes] == ["waiting", "1", "dead", "applied"]
    assert rows("code", "dead_letters") == [("not_a_message",)]
    assert service.handle(sent[:1]) == ["repeat"]
    release_all(service)
    assert rows("student_id, course_id", "student_courses") == [(1, 10), (2, 10)]


def test_a_command_that_waited_and_meets_a_lock_waits_on_and_is_told_once(
    service: Service, engine: Engine, rows: Rows, events: Events, load: Load
) -> None:
    sent = message(ENROLL, 1, [99], wait_until=LATER)
    service.handle([sent])
    load("INSERT INTO courses (id) VALUES (99)")
    with held(engine, "SELECT FROM students WHERE id = 1 FOR UPDATE"):
        for _ in range(3):
            service.release()
        assert rows("reason, told", "deferred_commands") == [("student", True)]
        assert rows("outcome", "commands") == [("waiting",)]
    release_all(service)
    assert kinds(events, sent.task_id) == ["waiting", "applied"]


def test_two_releases_at_once_decide_everything_once(
    worker_engine: Engine, publisher: Publisher, service: Service, events: Events, load: Load
) -> None:
    for n in range(4):
        service.handle([message(ENROLL, 1 + n % 5, [100 + n % 7], wait_until=LATER) for n in range(n, 200, 4)])
    load("INSERT INTO courses (id) SELECT generate_series(100, 106)")
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(release_all, [service, Service(worker_engine, publisher)]))
    told = Counter(event["type"] for event in events())
    assert told == {"enrollment.waiting.v1": 200, "enrollment.applied.v1": 200}
    assert len({(event["id"], event["type"]) for event in events()}) == 400


def test_a_release_that_is_cut_off_leaves_what_waits_as_it_was(
    service: Service, rows: Rows, events: Events, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = message(ENROLL, 1, [99], wait_until=LATER)
    service.handle([sent])
    before = rows("*", "deferred_commands"), rows("*", "commands")
    load("INSERT INTO courses (id) VALUES (99)")

    def cut_off(*_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "write_commands", cut_off)
        with pytest.raises(MemoryError):
            service.release()
    assert (rows("*", "deferred_commands"), rows("*", "commands")) == before
    release_all(service)
    assert kinds(events, sent.task_id) == ["waiting", "applied"]


def test_that_a_command_waits_is_told_first_though_its_worker_was_killed_before_it_did(
    worker_engine: Engine, publisher: Publisher, events: Events, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    load("INSERT INTO students (id) VALUES (1)")
    service = Service(worker_engine, publisher)
    sent = message(ENROLL, 1, [99], wait_until=LATER)
    with monkeypatch.context() as patch:  # as if killed right after the commit
        patch.setattr(service._relay, "publish", lambda *_: None)
        service.handle([sent, message(ENROLL, 1, [98])])
    load("INSERT INTO courses (id) VALUES (99)")
    release_all(Service(worker_engine, publisher))
    assert kinds(events, sent.task_id) == ["waiting", "applied"]
    assert len(events()) == 3


def test_what_breaks_after_its_wait_is_a_dead_letter_and_waits_no_more(
    service: Service, rows: Rows, load: Load
) -> None:
    load("ALTER TABLE student_courses ADD CONSTRAINT odd CHECK (course_id <> 99)")
    service.handle([message(ENROLL, 1, [99], wait_until=LATER)])
    load("INSERT INTO courses (id) VALUES (99)")
    release_all(service)
    assert rows("code", "dead_letters") == [("processing_failed",)]
    assert rows("outcome", "commands") == []


def test_commands_that_do_not_wait_send_the_same_statements_whatever_waits(service: Service) -> None:
    service.handle([message(ENROLL, 4, [14])])  # a first connection asks more
    sent: list[list[str]] = []
    for number in range(3):
        with counted() as statements:
            assert service.handle([message(ENROLL, 1 + number, [10 + number])]) == ["applied"]
        sent.append(statements)
        service.handle([message(ENROLL, 5, [10], effective_at=LATER), message(ENROLL, 5, [99], wait_until=LATER)])
    assert sent[0] == sent[1] == sent[2]
    assert sum("deferred_commands" in statement for statement in sent[0]) == 1  # the read of what is there


def test_that_a_command_may_wait_so_long_was_told_and_stands_when_the_deployment_is_set_otherwise(
    worker_engine: Engine, publisher: Publisher, service: Service, rows: Rows, load: Load
) -> None:
    timed = message(ENROLL, 1, [10], effective_at=soon(2))
    missing = message(ENROLL, 2, [98, 99], wait_until=LATER)
    service.handle([timed, missing])
    strict = Service(worker_engine, publisher, Policy(longest=timedelta(seconds=1)))
    assert strict.handle([message(ENROLL, 3, [10], wait_until=LATER)]) == ["rejected too_far_ahead [wait_until]"]
    load("INSERT INTO courses (id) VALUES (98)")
    eventually(lambda: strict.release() and rows("waits_for", "deferred_commands") == [(99,)])
    load("INSERT INTO courses (id) VALUES (99)")
    release_all(strict)
    assert rows("student_id, course_id", "student_courses") == [(1, 10), (2, 98), (2, 99)]


def test_a_wait_that_is_ended_while_its_command_is_looked_at_has_ended(
    service: Service, engine: Engine, rows: Rows, load: Load, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.handle([message(ENROLL, 1, [98, 99], wait_until=LATER)])
    load("INSERT INTO courses (id) VALUES (98)")
    awaiting = service._batches._awaiting
    settle = awaiting._settle

    def ended_meanwhile(*units: Any, **how: Any) -> Any:
        with engine.begin() as connection:
            awaited.end_waits(connection, (), Wait(Reason.UNKNOWN_COURSE, 98))
        return settle(*units, **how)

    monkeypatch.setattr(awaiting, "_settle", ended_meanwhile)
    release_all(service)
    assert rows("outcome", "commands") == [("rejected",)]
