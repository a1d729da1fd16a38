"""A lock that somebody else holds costs the commands that need it, and nobody else's."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Connection, Engine, text

from enrollment.errors import DeadLetterCode
from enrollment.names import APPLY, ENROLL, REPLACE, UNENROLL
from models import deferred, holders, ledger
from models.deferred import Reason, Wait
from tasks.caution import Blocked
from tasks.messages import Message, units_of
from tests.integration.conftest import message
from tests.integration.locked import held, release_all
from worker.publishing import Publisher
from worker.service import Service

pytestmark = pytest.mark.usefixtures("at_leisure")

Rows = Callable[..., list[tuple[Any, ...]]]
Events = Callable[[], list[dict[str, Any]]]


@pytest.mark.parametrize(
    "lock",
    [
        "SELECT FROM students WHERE id = 1 FOR UPDATE",
        "SELECT FROM students WHERE id = 1 FOR SHARE",
        "UPDATE students SET name = 'x' WHERE id = 1",
        "UPDATE students SET id = 77 WHERE id = 1",
        "DELETE FROM students WHERE id = 1",
    ],
)
def test_a_locked_student_costs_the_commands_of_this_student_alone(
    service: Service, engine: Engine, rows: Rows, events: Events, lock: str
) -> None:
    sent = [message(ENROLL, 1, [10]), *(message(ENROLL, n, [11]) for n in (2, 3)), message(ENROLL, 1, [12])]
    with held(engine, lock):
        deferred = "deferred: student is locked"
        assert service.handle(sent) == [deferred, "applied", "applied", deferred]
        assert service.handle([message(UNENROLL, 2, [11])]) == ["applied"]
        assert service.release() is not None
        assert rows("student_id, course_id", "student_courses") == [(3, 11)]
    release_all(service)
    assert rows("student_id, course_id", "student_courses") == [(1, 10), (1, 12), (3, 11)]
    assert len(events()) == len({event["id"] for event in events()}) == 5
    assert not rows("*", "outbox")


def test_a_thousand_locked_students_among_ten_thousand_leave_the_others_alone(
    service: Service, engine: Engine, rows: Rows
) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO students (id) SELECT generate_series(1001, 11000)"))
    sent = [message(ENROLL, 1001 + n, [10]) for n in range(0, 10_000, 4)]
    with held(engine, "SELECT FROM students WHERE id BETWEEN 1001 AND 2000 FOR UPDATE"):
        outcomes = [outcome for n in range(0, 2_500, 500) for outcome in service.handle(sent[n : n + 500])]
        assert outcomes == ["deferred: student is locked"] * 250 + ["applied"] * 2_250
        assert service.release() is not None
    release_all(service)
    assert len(rows("*", "student_courses")) == 2_500


def test_a_locked_course_costs_the_commands_that_name_it_alone(
    service: Service, engine: Engine, rows: Rows, events: Events
) -> None:
    sent = [message(ENROLL, 1, [10, 11]), message(ENROLL, 1, [12]), message(ENROLL, 2, [10]), message(REPLACE, 3, [13])]
    with held(engine, "SELECT FROM courses WHERE id = 10 FOR UPDATE"):
        locked = "deferred: course is locked"
        assert service.handle(sent) == [locked, "applied", locked, "applied"]
        assert service.handle([message(ENROLL, 4, [10]), message(ENROLL, 5, [11])]) == [locked, "applied"]
        assert service.release() is not None
        assert rows("reason, waits_for", "deferred_commands") == [("course", 10)] * 3
    release_all(service)
    assert len(rows("*", "student_courses")) == 7
    assert len(events()) == 6


@pytest.mark.parametrize(
    "lock",
    [
        "SELECT FROM student_courses WHERE (student_id, course_id) = (1, 10) FOR SHARE",
        "DELETE FROM student_courses WHERE student_id = 1",
        "UPDATE student_courses SET issued_at = now() WHERE student_id = 1",
        "SELECT FROM tombstones WHERE student_id = 1 FOR UPDATE",
        "SELECT FROM replace_marks WHERE student_id = 1 FOR UPDATE",
        "INSERT INTO student_courses (student_id, course_id) VALUES (1, 14)",
        "INSERT INTO tombstones VALUES (1, 14, now(), gen_random_uuid())",
    ],
)
def test_locked_rows_of_a_student_cost_the_commands_that_write_them_alone(
    service: Service, engine: Engine, rows: Rows, events: Events, lock: str
) -> None:
    before = [message(REPLACE, 1, [10, 11]), message(UNENROLL, 1, [11]), message(ENROLL, 2, [10])]
    assert service.handle(before) == ["applied"] * 3
    sent = [message(ENROLL, n, [12]) for n in (2, 3, 4)]
    task = UNENROLL if "tombstones VALUES" in lock else REPLACE
    with held(engine, lock):
        outcomes = service.handle([*sent[:2], message(task, 1, [14]), sent[2]])
        assert [outcome.split(":")[0] for outcome in outcomes] == ["applied", "applied", "deferred", "applied"]
        assert service.handle([message(ENROLL, 5, [12]), message(task, 1, [14])])[0] == "applied"
        assert service.release() is not None
    release_all(service)
    assert len(events()) == 9
    left = [10] if task == UNENROLL else [14]
    assert [course for student, course in rows("student_id, course_id", "student_courses") if student == 1] == left


def test_locked_dead_letters_cost_what_becomes_one_alone(
    service: Service, engine: Engine, rows: Rows, events: Events
) -> None:
    done = message(ENROLL, 1, [10])
    service.handle([done])
    reused = Message(ENROLL, done.task_id, "another delivery", (1, [12]), {})
    sent = [message(ENROLL, 1, [11]), message(ENROLL, "x", [10]), message(ENROLL, 2, [10], task_id="?"), reused]
    with held(engine, "LOCK TABLE dead_letters IN SHARE MODE"):
        locked = "deferred: dead letters are locked"
        assert service.handle(sent) == ["applied", locked, locked, locked]
        assert service.handle(sent) == ["repeat", "repeat", locked, "repeat"]
        assert service.release() is not None
        with pytest.raises(Blocked):
            service.dead_letter([units_of([done])[0].dead_letter(DeadLetterCode.EXPIRED, "Too late.")])
    release_all(service)
    codes = [code for (code,) in rows("code", "dead_letters")]
    assert codes == ["command_id_missing", "command_id_reused", "invalid_command"]
    assert len(events()) == 3


def test_events_go_on_whoever_holds_the_relays_rows(
    service: Service, engine: Engine, rows: Rows, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:  # as if killed right after the commit
        patch.setattr(service._relay, "publish", lambda *_: None)
        service.handle([message(ENROLL, 1, [10])])
        service.handle([message(ENROLL, 2, [10])])
    service._relay.mark_backlog()
    with (
        held(engine, "SELECT pg_advisory_lock(hashtext('enrollment relay'))"),
        held(engine, "SELECT FROM outbox ORDER BY id LIMIT 1 FOR UPDATE"),
    ):
        service.handle([message(ENROLL, 3, [10])])
        assert [event["data"]["student_id"] for event in events()] == [2, 3]
    service.relay(older_than=0)
    assert [event["data"]["student_id"] for event in events()] == [2, 3, 1]
    assert not rows("*", "outbox")


def test_a_command_without_a_stamp_keeps_its_place_before_what_was_applied_meanwhile(
    service: Service, engine: Engine, rows: Rows, events: Events
) -> None:
    first, second = message(ENROLL, 1, [10, 11]), message(UNENROLL, 1, [10])
    with held(engine, "SELECT FROM students WHERE id = 1 FOR UPDATE"):
        service.handle([first])
    assert service.handle([second]) == ["applied"]
    release_all(service)
    assert rows("course_id", "student_courses") == [(11,)]
    effects = {event["id"]: event["data"] for event in events()}
    assert (effects[first.task_id]["enrolled"], effects[first.task_id]["superseded"]) == ([11], [10])


def test_a_repeat_of_what_waits_is_a_repeat_and_another_content_is_refused(
    service: Service, engine: Engine, rows: Rows, events: Events
) -> None:
    first = message(ENROLL, 1, [10])
    other = Message(ENROLL, first.task_id, "another delivery", (2, [11]), {})
    with held(engine, "SELECT FROM students WHERE id = 1 FOR UPDATE"):
        assert service.handle([first, first]) == ["deferred: student is locked", "repeat"]
        assert service.handle([first]) == ["repeat"]
        assert service.handle([other]) == ["dead letter command_id_reused"]
        assert service.handle([Message(ENROLL, first.task_id, "a third", (1, [12]), {})])[0].startswith("deferred")
    release_all(service)
    assert rows("student_id, course_id", "student_courses") == [(1, 10)]
    assert [code for (code,) in rows("code", "dead_letters")] == ["command_id_reused"] * 2
    assert len(events()) == 1


def test_what_waits_and_comes_again_too_late_is_no_dead_letter(service: Service, engine: Engine, rows: Rows) -> None:
    sent = message(ENROLL, 1, [10])
    with held(engine, "SELECT FROM students WHERE id = 1 FOR UPDATE"):
        service.handle([sent])
        service.dead_letter([units_of([sent])[0].dead_letter(DeadLetterCode.EXPIRED, "Too late.")])
    release_all(service)
    assert rows("*", "dead_letters") == []


def test_an_apply_message_of_which_some_students_are_locked_is_told_in_numbers(
    service: Service, engine: Engine, events: Events
) -> None:
    items = [as_item(student, 10) for student in (1, 2, 3, 1)]
    with held(engine, "SELECT FROM students WHERE id IN (1, 2) FOR UPDATE"):
        assert service.handle([message(APPLY, commands=items)]) == ["1 applied, 3 deferred"]
    release_all(service)
    assert len(events()) == 4


def as_item(student_id: int, course_id: int) -> dict[str, Any]:
    fields = {"student_id": student_id, "course_ids": [course_id]}
    return {"command_id": str(uuid4()), "command": "enroll", **fields}


def test_what_breaks_when_it_is_released_is_a_dead_letter(service: Service, engine: Engine, rows: Rows) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE student_courses ADD CONSTRAINT odd CHECK (course_id <> 13)"))
    with held(engine, "SELECT FROM students FOR UPDATE"):
        service.handle([message(ENROLL, 1, [13]), message(ENROLL, 2, [10]), message(ENROLL, 3, [10])])
    release_all(service)
    assert [code for (code,) in rows("code", "dead_letters")] == ["processing_failed"]
    assert len(rows("*", "student_courses")) == 2


def test_two_releases_at_once_apply_everything_once(
    worker_engine: Engine, publisher: Publisher, service: Service, rows: Rows, events: Events
) -> None:
    with held(worker_engine, "SELECT FROM students FOR UPDATE"):
        for _ in range(8):
            service.handle([message(ENROLL, 1 + n % 5, [10 + n % 3]) for n in range(50)])
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(release_all, [service, Service(worker_engine, publisher)]))
    assert len(events()) == len({event["id"] for event in events()}) == len(rows("*", "commands")) == 400


def test_one_students_backlog_does_not_hide_the_others(
    service: Service, engine: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.deferred._PAGE", 20)
    monkeypatch.setattr("tasks.deferred._WAITS", 2)
    with held(engine, "SELECT FROM students WHERE id < 5 FOR UPDATE"):
        with held(engine, "SELECT FROM students WHERE id = 5 FOR UPDATE"):
            service.handle([message(ENROLL, 1 + n % 4, [10]) for n in range(400)])
            service.handle([message(ENROLL, 5, [10])])
        service.release()
        assert rows("student_id", "commands") == [(5,)]


def test_what_waits_is_still_there_when_its_release_is_cut_off(
    service: Service, engine: Engine, rows: Rows, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    with held(engine, "SELECT FROM students WHERE id = 1 FOR UPDATE"):
        service.handle([message(ENROLL, 1, [10])])
    before = rows("*", "deferred_commands")

    def cut_off(connection: Connection, *_: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(ledger, "write_commands", cut_off)
        with pytest.raises(MemoryError):
            service.release()
    assert rows("*", "deferred_commands") == before
    release_all(service)
    assert len(events()) == 1


def test_a_frozen_worker_is_not_waited_for(service: Service, worker_engine: Engine, engine: Engine, rows: Rows) -> None:
    with held(worker_engine, "SELECT FROM students WHERE id = 1 FOR UPDATE"):
        with engine.connect() as connection:
            connection.execute(text("SELECT pg_sleep(2.1)"))
        assert service.handle([message(ENROLL, 1, [10]), message(ENROLL, 2, [10])])[0].startswith("deferred")
    release_all(service)
    assert len(rows("*", "student_courses")) == 2


WAITS = [
    ("SELECT FROM students WHERE id = 1 FOR UPDATE", Wait(Reason.STUDENT, 1)),
    ("SELECT FROM courses WHERE id = 10 FOR UPDATE", Wait(Reason.COURSE, 10)),
    ("LOCK TABLE dead_letters IN SHARE MODE", Wait(Reason.DEAD_LETTERS, 0)),
]


@pytest.mark.parametrize(("lock", "wait"), WAITS)
def test_what_is_waited_for_is_told_with_the_session_that_holds_it(
    service: Service, worker_engine: Engine, engine: Engine, lock: str, wait: Wait
) -> None:
    with held(engine, lock):
        service.handle([message(ENROLL, 1, [10]), message(ENROLL, "x", [10])])
        with worker_engine.connect() as connection:
            told = {waiting.reason: waiting for waiting in deferred.waiting(connection)}
        assert (told[wait.reason].commands, told[wait.reason].ids) == (1, [wait.id])
        [session] = holders.holders_of(worker_engine, [wait])
        assert (session.application, session.state, session.query) == ("tests", "idle in transaction", lock)
        assert session.seconds is not None
    assert holders.holders_of(worker_engine, [wait]) == []
