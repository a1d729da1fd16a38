from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import Engine, text

from enrollment.commands import Command, as_fields
from enrollment.names import APPLY, ENROLL, REPLACE, UNENROLL
from tasks.messages import Message
from tests.integration.conftest import message
from tests.unit.strategies import commands
from worker.publishing import Publisher
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]
Events = Callable[[], list[dict[str, Any]]]


def test_a_command_writes_its_rows_its_record_and_its_event(service: Service, rows: Rows, events: Events) -> None:
    command = message(ENROLL, 1, [11, 10], source="portal", issued_at="2026-01-31T09:30:00Z")
    assert service.handle([command]) == ["applied"]
    assert rows("student_id, course_id", "student_courses") == [(1, 10), (1, 11)]
    assert rows("command_id, outcome, course_ids, enrolled", "commands") == [
        (UUID(command.task_id), "applied", [11, 10], [10, 11])
    ]
    [event] = events()
    assert (event["id"], event["type"]) == (command.task_id, "enrollment.applied.v1")
    assert event["data"]["enrolled"] == [10, 11]
    assert rows("*", "outbox") == []


def test_statements_stay_prepared_through_what_is_done_between_batches(service: Service, worker_engine: Engine) -> None:
    """psycopg forgets them after a rollback: each command of a worker with little to do would be planned anew."""

    def prepared() -> set[object]:
        with worker_engine.begin() as connection:
            session: Any = connection.connection.driver_connection
            return set(session.statements._prepared)

    for _ in range(7):
        service.handle([message(ENROLL, 1, [10])])
    before = prepared()
    service.relay()
    service.release()
    assert before
    assert before <= prepared()


def test_a_repeat_changes_nothing_and_tells_nothing(service: Service, rows: Rows, events: Events) -> None:
    command = message(ENROLL, 1, [10])
    assert service.handle([command, command]) == ["applied", "repeat"]
    assert service.handle([command]) == ["repeat"]
    assert len(events()) == len(rows("*", "commands")) == 1


def test_an_unknown_course_rejects_the_whole_command_and_only_it(service: Service, rows: Rows, events: Events) -> None:
    results = service.handle([message(ENROLL, 1, [10, 99, 98]), message(ENROLL, 1, [11]), message(ENROLL, 77, [10])])
    assert results == ["rejected unknown_courses [98, 99]", "applied", "rejected unknown_student [77]"]
    assert rows("student_id, course_id", "student_courses") == [(1, 11)]
    assert [e["data"]["errors"][0]["ids"] if e["data"]["errors"] else None for e in events()] == [[98, 99], None, [77]]


def test_an_invalid_command_is_rejected_and_kept_as_a_dead_letter(service: Service, rows: Rows, events: Events) -> None:
    bad = message(ENROLL, student_id="1", course_ids=[10], course_id=5)
    assert service.handle([bad]) == ["rejected invalid_command [student_id, course_id]"]
    assert service.handle([bad]) == ["repeat"]
    [event] = events()
    assert event["data"]["student_id"] is None
    assert "course_id is not a field" in event["data"]["errors"][0]["message"]
    assert rows("code, command_id, payload", "dead_letters") == [
        ("invalid_command", UUID(bad.task_id), '{"course_id":5,"course_ids":[10],"student_id":"1"}')
    ]


def test_a_used_id_with_other_content_is_a_dead_letter_and_the_first_stands(
    service: Service, rows: Rows, events: Events
) -> None:
    first, other = message(ENROLL, 1, [10], task_id="0190f3a2-0000-7000-8000-000000000001"), message(ENROLL, 1, [11])
    reused = Message(ENROLL, first.task_id, "another delivery", other.args, {})
    assert service.handle([first, reused]) == ["applied", "dead letter command_id_reused"]
    assert service.handle([reused]) == ["dead letter command_id_reused"]
    assert rows("student_id, course_id", "student_courses") == [(1, 10)]
    assert len(events()) == 1
    assert rows("code, command_id", "dead_letters") == [("command_id_reused", UUID(first.task_id))]


def test_a_message_without_a_usable_id_is_a_dead_letter_without_an_event(
    service: Service, rows: Rows, events: Events
) -> None:
    assert service.handle([message(ENROLL, 1, [10], task_id="not-a-uuid")]) == ["dead letter command_id_missing"]
    assert not events()
    assert not rows("*", "student_courses")
    assert not rows("*", "commands")
    assert rows("code, task", "dead_letters") == [("command_id_missing", ENROLL)]


@pytest.mark.parametrize("name", ["x\x00y", "\ud800", "☃", '"{},\\', "NULL"])
def test_what_postgresql_cannot_hold_is_kept_escaped(service: Service, rows: Rows, name: str) -> None:
    assert service.handle([message(ENROLL, 1, [10], **{name: name})])[0].startswith("rejected invalid_command")
    [(payload,)] = rows("payload", "dead_letters")
    assert payload.isascii()


def test_a_source_named_null_is_kept_as_it_is(service: Service, rows: Rows) -> None:
    service.handle([message(ENROLL, 1, [10], source="NULL"), message(ENROLL, 1, [11])])
    assert rows("source", "commands") == [("NULL",), (None,)]


def test_a_bulk_reports_what_came_of_its_commands(service: Service, rows: Rows, events: Events) -> None:
    def item(command: str, **fields: Any) -> dict[str, Any]:
        return {"command_id": str(uuid4()), "command": command, "student_id": 1, **fields}

    bulk = message(
        APPLY,
        commands=[
            item("enroll", course_ids=[10, 11]),
            item("replace", course_ids=[11, 12]),
            item("unenroll", course_ids=[99]),
            item("drop", course_ids=[10]),
            {"command_id": "?"},
        ],
    )
    assert service.handle([bulk]) == ["2 applied, 2 rejected, 1 dead letters"]
    assert service.handle([bulk]) == ["4 repeated, 1 dead letters"]
    assert rows("student_id, course_id", "student_courses") == [(1, 11), (1, 12)]
    assert len(events()) == 4
    assert [code for (code,) in rows("code", "dead_letters")] == ["command_id_missing", "invalid_command"]


def test_commands_without_a_stamp_count_in_order_of_arrival_over_batches(service: Service, rows: Rows) -> None:
    for _ in range(3):
        service.handle([message(ENROLL, 1, [10]), message(UNENROLL, 1, [10])])
    assert rows("*", "student_courses") == []
    service.handle([message(REPLACE, 1, [12])])
    service.handle([message(ENROLL, 1, [13])])
    assert rows("course_id", "student_courses") == [(12,), (13,)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(commands())
def test_any_order_ends_in_the_same_rows(engine: Engine, publisher: Publisher, of: list[Command]) -> None:
    tables = "student_courses, tombstones, replace_marks, commands, outbox, dead_letters, closed_courses"
    service = Service(engine, publisher)
    ends = []
    for order in (of, of[::-1]):
        with engine.begin() as connection:
            connection.execute(text(f"TRUNCATE {tables}, students, courses"))
            connection.execute(text("INSERT INTO students (id) VALUES (1), (2), (3)"))
            connection.execute(text("INSERT INTO courses (id) VALUES (10), (11), (12), (13)"))
        for command in order:
            service.handle([message(APPLY, commands=[as_fields(command)])])
        with engine.connect() as connection:
            ends.append(
                [
                    sorted(map(tuple, connection.execute(text(f"SELECT * FROM {table}"))))
                    for table in ("student_courses", "tombstones", "replace_marks")
                ]
            )
    assert ends[0] == ends[1]
