"""Commands that wait for their student or course, and for their time, on real servers."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from enrollment.commands import Command, as_fields
from enrollment.names import APPLY, ENROLL, REPLACE, UNENROLL, WITHDRAW
from enrollment.waiting import Policy
from models import awaited, ledger
from tasks.messages import Message
from tests.integration.conftest import message
from tests.integration.locked import held, release_all
from tests.unit.strategies import commands
from worker.publishing import Publisher
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]
Events = Callable[[], list[dict[str, Any]]]
LATER = "2999-01-01T00:00:00Z"


@pytest.fixture
def load(engine: Engine) -> Callable[[str], None]:
    """Give a function that runs a statement and commits, as the owner of the catalog does."""

    def run(statement: str) -> None:
        with engine.begin() as connection:
            connection.execute(text(statement))

    return run


Load = Callable[[str], None]


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
    sent = message(ENROLL, 77, [99], wait_until=soon(0.3))
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
    first, second = soon(0.4), soon(0.8)
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
    at = soon(0.3)
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
        patch.setattr(service._relay, "publish", lambda _: None)
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


def test_students_and_courses_are_found_in_steps_however_many_are_waited_for(
    service: Service, rows: Rows, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.awaiting._LOOKED_AT", 3)
    monkeypatch.setattr("tasks.awaiting._PAGE", 2)
    service.handle([message(ENROLL, 1, [1000 + n % 20], wait_until=LATER) for n in range(60)])
    load("INSERT INTO courses (id) SELECT generate_series(1000, 1019, 2)")
    while len(rows("*", "deferred_commands")) > 30:
        service.release()
    assert {course % 2 for (course,) in rows("waits_for", "deferred_commands")} == {1}


def test_looking_at_what_is_waited_for_costs_steps_through_an_index(service: Service, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("""
            INSERT INTO deferred_commands (reason, waits_for, first_seen, command_id, request, task, task_id,
                                           message_key, position, headers, until, told)
            SELECT 'unknown_course', 1000000 + n % 3, now(), gen_random_uuid(), '{}', '', '', '', 0, '{}',
                   now() + interval '1 day', true FROM generate_series(1, 20000) AS n""")
        )
    with engine.connect() as connection:
        plan = "\n".join(
            row[0]
            for row in connection.execute(
                text(f"EXPLAIN (ANALYZE, COSTS OFF) {awaited._CATALOG.text}"), {"reason": "time", "id": 0, "most": 1000}
            )
        )
        looked = awaited.look(connection, None, 1000)
    assert "Seq Scan" not in plan
    assert looked == ([], None)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(of=commands(), loads=st.lists(st.sampled_from([(), (1, 10), (2, 11), (3, 12), (1, 13)]), min_size=4, max_size=4))
def test_whenever_the_catalog_comes_the_rows_end_as_if_it_had_been_there(
    worker_engine: Engine, engine: Engine, publisher: Publisher, of: list[Command], loads: Sequence[tuple[int, ...]]
) -> None:
    patient = [command.model_copy(update={"wait_until": datetime(2999, 1, 1, tzinfo=UTC)}) for command in of]
    parts = [patient[n::4] for n in range(4)]
    assert ends(worker_engine, engine, publisher, parts, loads) == ends(
        worker_engine, engine, publisher, [patient], None
    )


def ends(
    worker_engine: Engine,
    engine: Engine,
    publisher: Publisher,
    parts: Sequence[list[Command]],
    loads: Sequence[tuple[int, ...]] | None,
) -> list[list[tuple[Any, ...]]]:
    """Apply the parts one after the other, with some of the catalog after each; return the rows in the end."""
    tables = "student_courses, tombstones, replace_marks, commands, outbox, dead_letters, closed_courses"
    everything = (
        "INSERT INTO students (id) VALUES (1), (2), (3) ON CONFLICT DO NOTHING",
        "INSERT INTO courses (id) VALUES (10), (11), (12), (13) ON CONFLICT DO NOTHING",
    )
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {tables}, students, courses, deferred_commands"))
        for statement in everything if loads is None else ():
            connection.execute(text(statement))
    service = Service(worker_engine, publisher)
    for place, part in enumerate(parts):
        if part:
            service.handle([message(APPLY, commands=[as_fields(command) for command in part])])
        if loads is not None and loads[place]:
            student, course = loads[place]
            with engine.begin() as connection:
                connection.execute(text(f"INSERT INTO students (id) VALUES ({student}) ON CONFLICT DO NOTHING"))
                connection.execute(text(f"INSERT INTO courses (id) VALUES ({course}) ON CONFLICT DO NOTHING"))
        service.release()
    with engine.begin() as connection:
        for statement in everything:
            connection.execute(text(statement))
    unknown = "waits_for IN (9, 99)"
    while deferred_but(engine, unknown):
        service._batches._awaiting._look_from = 0
        service.release()
    with engine.connect() as connection:
        names = ("student_courses", "tombstones", "replace_marks")
        found = [sorted(map(tuple, connection.execute(text(f"SELECT * FROM {name}")))) for name in names]
        ids = sorted(connection.execute(text("SELECT command_id FROM commands")).scalars(), key=UUID.__str__)
    return [*found, [(id_,) for id_ in ids]]


def deferred_but(engine: Engine, unknown: str) -> bool:
    with engine.connect() as connection:
        return bool(
            connection.execute(text(f"SELECT EXISTS (SELECT FROM deferred_commands WHERE NOT {unknown})")).scalar_one()
        )
