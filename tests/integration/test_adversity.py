import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from time import sleep
from typing import Any
from unittest.mock import ANY
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Engine, text

from enrollment.errors import DeadLetterCode
from enrollment.names import APPLY, ENROLL, REPLACE, UNENROLL
from models import dead_letters, ledger
from tasks.messages import Message, units_of
from tests.integration.conftest import message
from worker.consume.dead_letters import dead_letter_of_message
from worker.local.postgres import Postgres
from worker.publishing import Publisher
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]
Events = Callable[[], list[dict[str, Any]]]


def test_many_workers_with_the_same_commands_in_their_own_order_agree(
    engine: Engine, publisher: Publisher, catalog: None, rows: Rows, events: Events
) -> None:
    """Deadlocks, lost updates and double records would show here."""
    sent = [
        message(
            (ENROLL, UNENROLL, REPLACE)[n % 3],
            n % 5 + 1,
            [10 + n % 5, 10 + n * n % 5],
            issued_at=f"2026-01-01T00:{n % 60:02}:00Z",
        )
        for n in range(240)
    ]

    def work(worker: int) -> None:
        service = Service(engine, publisher)
        mine = sent[worker::4] + sent[(worker + 1) % 4 :: 4][::-1]
        for start in range(0, len(mine), 15):
            service.handle(mine[start : start + 15])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    together = rows("*", "student_courses")
    assert len(rows("*", "commands")) == len(events()) == len({e["id"] for e in events()}) == len(sent)
    with engine.begin() as connection:
        connection.execute(text("TRUNCATE student_courses, tombstones, replace_marks, commands"))
    Service(engine, publisher).handle(sent)
    assert rows("*", "student_courses") == together


def test_one_command_that_breaks_its_batch_becomes_a_dead_letter_alone(
    service: Service, engine: Engine, rows: Rows, events: Events
) -> None:
    with engine.begin() as connection:  # a rule of the database that the worker knows nothing of
        connection.execute(text("ALTER TABLE student_courses ADD CONSTRAINT odd CHECK (course_id <> 13)"))
    sent = [message(ENROLL, 1, [course]) for course in (10, 11, 12, 13, 14)]
    results = service.handle(sent)
    assert [result.split(":")[0] for result in results] == ["applied"] * 3 + [
        "dead letter processing_failed",
        "applied",
    ]
    assert len(rows("*", "student_courses")) == len(events()) == 4
    assert rows("code, command_id", "dead_letters") == [("processing_failed", UUID(sent[3].task_id))]


def test_a_course_deleted_while_its_enroll_is_decided_is_unknown_after_all(
    service: Service, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = ledger.write_changes

    def delete_first(*args: Any) -> None:
        monkeypatch.setattr(ledger, "write_changes", write)
        with engine.begin() as connection:
            connection.execute(text("DELETE FROM courses WHERE id = 10"))
        write(*args)

    monkeypatch.setattr(ledger, "write_changes", delete_first)
    assert service.handle([message(ENROLL, 1, [10])]) == ["rejected unknown_courses [10]"]


def test_two_commands_under_one_id_for_two_students_leave_one(
    service: Service, engine: Engine, publisher: Publisher, rows: Rows
) -> None:
    shared = str(uuid4())
    pairs = [Message(ENROLL, shared, f"delivery {n}", (n, [10]), {}) for n in (1, 2)]
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda m: Service(engine, publisher).handle([m]), pairs))
    assert sorted(results) == [["applied"], ["dead letter command_id_reused"]]
    assert len(rows("*", "student_courses")) == 1


def test_a_database_that_is_down_is_waited_for(
    service: Service, postgres: Postgres, rows: Rows, events: Events
) -> None:
    service.handle([message(ENROLL, 1, [10])])
    postgres.kill()
    beats = 0

    def keep_alive() -> None:
        nonlocal beats
        beats += 1
        if beats == 3:
            postgres.start()

    assert service.handle([message(ENROLL, 1, [11])], keep_alive) == ["applied"]
    assert beats >= 3
    assert len(events()) == 2
    assert rows("code", "dead_letters") == []


def test_a_processed_command_that_comes_again_too_late_is_no_dead_letter(service: Service, rows: Rows) -> None:
    done, other = message(ENROLL, 1, [10]), message(ENROLL, 1, [11])
    reused = Message(ENROLL, done.task_id, "another delivery", (1, [12]), {})
    service.handle([done])
    service.dead_letter(
        [
            replace(units_of([m])[0].dead_letter(DeadLetterCode.EXPIRED, "Too late."), key=f"delivery {m.key}")
            for m in (done, other, reused)
        ]
    )
    assert {key for (key,) in rows("message_key", "dead_letters")} == {f"delivery {m.key}" for m in (other, reused)}


@pytest.mark.parametrize("code", [DeadLetterCode.EXPIRED, DeadLetterCode.REVOKED, DeadLetterCode.TOO_MANY_DELIVERIES])
def test_a_message_of_many_that_comes_again_too_late_is_a_dead_letter_only_if_some_of_it_was_not_processed(
    service: Service, rows: Rows, code: DeadLetterCode
) -> None:
    done, more = ([as_item(message(ENROLL, n, [10])) for n in numbers] for numbers in ((1, 2, 3), (4, 5)))
    service.handle([message(APPLY, commands=done)])
    for key, items in (("done", done), ("some", [*done, *more]), ("unknown", [*done, {"command": "enroll"}])):
        body = json.dumps([[], {"commands": items}, {}])
        headers = {"id": str(uuid4()), "task": APPLY}
        service.dead_letter([dead_letter_of_message(headers, body, key=key, code=code, reason="Too late.")])
    assert rows("message_key", "dead_letters") == [("delivery some",), ("delivery unknown",)]


def as_item(command: Message) -> dict[str, Any]:
    student_id, course_ids = command.args
    return {"command_id": command.task_id, "command": "enroll", "student_id": student_id, "course_ids": course_ids}


def test_a_header_that_cannot_be_written_as_json_is_kept_as_that(service: Service, rows: Rows) -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    headers = {"id": "x", "expires": deep, "eta": None}
    code = DeadLetterCode.UNDECODABLE_BODY
    service.dead_letter([dead_letter_of_message(headers, b"", key="deep", code=code, reason="No.")])
    [(kept,)] = rows("headers", "dead_letters")
    assert json.loads(kept) == {"id": "x", "eta": None, "expires": ANY}
    assert "cannot be written as JSON" in json.loads(kept)["expires"]


def test_a_command_that_a_trigger_refuses_becomes_a_dead_letter_alone(
    service: Service, engine: Engine, rows: Rows
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text("""
                CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN IF NEW.course_id = 13 THEN RAISE EXCEPTION 'course 13 is full'; END IF; RETURN NEW; END $$
            """)
        )
        connection.execute(
            text("CREATE TRIGGER full_course BEFORE INSERT ON student_courses FOR EACH ROW EXECUTE FUNCTION refuse()")
        )
    results = service.handle([message(ENROLL, 1, [course]) for course in (12, 13, 14)])
    assert results == ["applied", "dead letter processing_failed: course 13 is full", "applied"]
    assert rows("course_id", "student_courses") == [(12,), (14,)]


def test_a_row_that_another_hand_puts_there_meanwhile_is_read_again(
    service: Service, engine: Engine, rows: Rows, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, hands = ledger.write_changes, [1]

    def write_late(*args: Any) -> None:
        while hands:
            with engine.begin() as other:
                other.execute(text("INSERT INTO student_courses VALUES (:student, 11)"), {"student": hands.pop()})
        write(*args)

    monkeypatch.setattr(ledger, "write_changes", write_late)
    sent = [message(ENROLL, 1, [10, 11]), message(ENROLL, 2, [11])]
    assert service.handle(sent) == ["applied", "applied"]
    assert rows("student_id, course_id, command_id", "student_courses") == sorted(
        [(1, 10, UUID(sent[0].task_id)), (1, 11, UUID(sent[0].task_id)), (2, 11, UUID(sent[1].task_id))], key=repr
    )
    assert [event["data"]["unchanged"] for event in events()] == [[11], []]


def test_a_dead_letter_that_fails_again_after_a_replay_is_open_again(
    service: Service, engine: Engine, rows: Rows
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE student_courses ADD CONSTRAINT odd CHECK (course_id <> 13)"))
    bad = message(ENROLL, 1, [13], issued_at="2026-01-01T00:00:00Z")
    service.handle([bad])
    with engine.begin() as connection:
        [letter] = dead_letters.open_ids(connection)
        dead_letters.mark_replayed(connection, letter, [UUID(bad.task_id)])
        assert dead_letters.open_ids(connection) == []
    service.handle([bad])
    with engine.connect() as connection:
        assert dead_letters.open_ids(connection) == [letter]


def test_a_database_of_another_isolation_level_ends_in_the_same_rows(
    engine: Engine, database_url: str, publisher: Publisher, catalog: None, rows: Rows
) -> None:
    """With a snapshot of before the wait for a lock, the later of two workers would not see what the first wrote."""
    with engine.begin() as connection:
        name = connection.execute(text("SELECT current_database()")).scalar_one()
        connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'"))
    engine.dispose()
    with engine.begin() as connection:
        shown = "SHOW transaction_isolation"
        assert connection.execute(text(shown)).scalar_one() == "read committed"


def test_the_largest_messages_are_applied_in_transactions_of_a_bounded_size(
    service: Service, engine: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.outages.PULSE", 0)
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO courses (id) SELECT generate_series(1000, 1999)"))
    items = [
        {
            "command_id": str(uuid4()),
            "command": "replace",
            "student_id": n % 5 + 1,
            "course_ids": list(range(1000, 2000)),
        }
        for n in range(60)
    ]
    beats: list[int] = []
    assert service.handle([message(APPLY, commands=items)], lambda: beats.append(1)) == ["60 applied"]
    assert len(beats) == 4, "60,060 pairs in transactions of 20,000 at most"
    assert len(rows("course_id", "student_courses")) == 5000


def test_a_command_without_a_stamp_counts_from_when_it_was_first_seen(
    service: Service, postgres: Postgres, rows: Rows
) -> None:
    postgres.kill()
    begun = datetime.now(UTC)

    def keep_alive() -> None:
        if not postgres.running:
            sleep(1.5)
            postgres.start()

    service.handle([message(ENROLL, 1, [10])], keep_alive)
    [(issued_at,)] = rows("issued_at", "commands")
    assert abs(issued_at - begun) < timedelta(seconds=1)
