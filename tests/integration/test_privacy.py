"""What is kept of a student is given out; and taken away, so that no late command brings anything back."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from enrollment.errors import DeadLetterCode
from enrollment.names import ENROLL, UNENROLL
from models import audit, dead_letters, privacy
from models.dead_letters import NewDeadLetter
from models.metadata import METADATA
from tests.integration.conftest import message
from worker.service import Service

NAME, SIS_ID = "Zoë O'Brien", 'sis "7"'
EARLIER, LATER = "2026-01-31T09:00:00Z", "2026-01-31T10:00:00Z"


@pytest.fixture
def known(service: Service, engine: Engine) -> Engine:
    """Have student 1 known by name, enrolled in 10, once in 11, and in a dead letter, an import and a waiting plan."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE students SET name = :n, sis_id = :s WHERE id = 1"), {"n": NAME, "s": SIS_ID})
        connection.execute(text("UPDATE students SET name = 'Another' WHERE id = 11"))
    service.handle(
        [message(ENROLL, 1, [10, 11], issued_at=LATER), message(UNENROLL, 1, [11], issued_at="2026-01-31T11:00:00Z")]
    )
    service.handle([message(ENROLL, 2, [10], issued_at=LATER)])
    letters = {
        "own": f'{{"student_id": 1, "name": "{NAME}"}}',
        "positional": "[[1, 10], {}]",
        "not JSON": f"please enroll {NAME}!",
        "several": '{"commands": [{"student_id": 1}, {"student_id": 2}]}',
        "another": '{"student_id": 11, "course_ids": [1]}',
    }
    with engine.begin() as connection:
        dead_letters.put(
            connection,
            [NewDeadLetter(key, DeadLetterCode.UNKNOWN_TASK, key, text_) for key, text_ in letters.items()],
        )
        connection.execute(
            text("""
                INSERT INTO imports (state, path, files, format, digest, source, options, issued_at, counts, outcomes)
                VALUES ('done', 'f.csv', '{}', 'plain', '', 'import/x', '{}', now(), '{}', '{}')
            """)
        )
        connection.execute(
            text("""
                INSERT INTO import_rows (import_id, number, student, course, student_id, planned, message)
                VALUES (1, 1, :s, 'c', 1, 'enroll', NULL), (1, 2, :s, 'c', NULL, 'rejected', :s),
                       (1, 3, 'other', 'c', 2, 'enroll', NULL)
            """),
            {"s": SIS_ID},
        )
        connection.execute(
            text(
                "INSERT INTO import_entries (import_id, number, kind, sis_id, title)"
                " VALUES (1, 1, 'student', :s, :n), (1, 2, 'other', :s, :n)"
            ),
            {"s": SIS_ID, "n": NAME},
        )
    return engine


def erase(engine: Engine) -> privacy.Erased:
    with engine.begin() as connection:
        return privacy.erase(connection, 1, by="cli/registrar")


def test_all_that_is_kept_of_a_student_is_given_out_and_nothing_of_others(known: Engine) -> None:
    with known.begin() as connection:
        found = privacy.export(connection, 1, by="cli/registrar")
        [entry] = audit.newest(connection)
    assert found["student"] == [{"id": 1, "sis_id": SIS_ID, "name": NAME}]
    assert {len(found[name]) for name in ("enrollments", "unenrolled")} == {1}
    assert [it["student_id"] for it in found["commands"]] == [1, 1]
    assert [it["message_key"] for it in found["dead_letters"]] == ["own", "positional", "not JSON", "several"]
    assert [it["number"] for it in found["import_rows"]] == [1, 2]
    assert (entry.who, entry.action, entry.subject) == ("cli/registrar", "student.exported", "students/1")


def test_what_remains_of_an_erased_student_is_ids(known: Engine) -> None:
    done = erase(known)
    assert (done.found, done.enrollments, done.dead_letters, done.import_rows) == (True, 1, 3, 2)
    with known.begin() as connection:
        everything = "".join(str(row) for table in METADATA.sorted_tables for row in connection.execute(table.select()))
        left = [it.message for it in dead_letters.newest(connection)]
        [several] = done.undecided
        assert dead_letters.get(connection, several).payload.count("student_id") == 2
        dead_letters.discard(connection, [several], by="cli/registrar")
    assert "Zo" not in everything
    assert SIS_ID.replace('"', "") not in everything.replace('"', "")
    assert left == ["another", "several"]
    again = erase(known)
    assert (again.found, again.enrollments, again.dead_letters, again.undecided) == (False, 0, 1, ())


def test_the_world_is_told_that_an_erased_student_is_in_no_course(
    known: Engine, service: Service, events: Callable[[], list[dict[str, Any]]]
) -> None:
    erase(known)
    service.relay(older_than=0)
    [data] = [it["data"] for it in events() if it["data"]["source"] == "catalog:student-deleted"]
    assert (data["student_id"], data["unenrolled"]) == (1, [10])


def test_a_late_command_of_an_erased_student_brings_nothing_back_even_where_the_id_comes_back(
    known: Engine, service: Service, rows: Callable[..., list[tuple[Any, ...]]]
) -> None:
    erase(known)
    service.handle([message(ENROLL, 1, [10, 12], issued_at=EARLIER)])
    assert "rejected" in {outcome for (outcome,) in rows("outcome", "commands")}
    with known.begin() as connection:
        connection.execute(text("INSERT INTO students (id) VALUES (1)"))
    service.handle([message(ENROLL, 1, [10, 11, 12, 13], issued_at=LATER), message(ENROLL, 1, [13])])
    assert rows("student_id, course_id", "student_courses") == [(2, 10)]


def test_commands_that_wait_for_their_time_are_named_for_they_would_apply_should_the_id_come_back(
    service: Service, engine: Engine
) -> None:
    scheduled = message(ENROLL, 1, [10], effective_at="2999-01-01T00:00:00Z")
    service.handle([scheduled, message(ENROLL, 2, [10], effective_at="2999-01-01T00:00:00Z")])
    assert [str(it) for it in erase(engine).scheduled] == [scheduled.task_id]


def test_rows_of_the_audit_are_only_added(engine: Engine) -> None:
    with engine.begin() as connection:
        audit.add(connection, "admin/a", audit.CHANGED, [audit.student(1), audit.student(2)])
    for statement in ("UPDATE audit SET who = 'b'", "DELETE FROM audit", "TRUNCATE audit"):
        with pytest.raises(DBAPIError, match="only added"), engine.begin() as connection:
            connection.execute(text(statement))
    with engine.connect() as connection:
        assert [it.subject for it in audit.newest(connection)] == ["students/2", "students/1"]
        assert [it.who for it in audit.newest(connection, subject="students/1")] == ["admin/a"]
