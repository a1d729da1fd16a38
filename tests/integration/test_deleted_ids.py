"""Rows that another hand deletes, and ids that come back: the table and a copy of the stream alone stay equal."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg.errors import DeadlockDetected, InsufficientPrivilege, RestrictViolation
from sqlalchemy import Engine

from enrollment.copy import follow
from enrollment.events import Event
from enrollment.names import ENROLL, REPLACE, UNENROLL
from enrollment.state import StudentState
from enrollment.taken import REASONS, taken_because
from models import ledger, outbox, queries
from models.engine import make_engine
from tests.integration.conftest import message
from tests.unit.copies import Rows, rows_of
from worker.publishing import Publisher
from worker.service import Service

Read = Callable[..., list[tuple[Any, ...]]]
Events = Callable[[], list[dict[str, Any]]]

CASCADES: LiteralString = """
    ALTER TABLE student_courses
        DROP CONSTRAINT student_courses_student_id_fkey, DROP CONSTRAINT student_courses_course_id_fkey,
        ADD FOREIGN KEY (student_id) REFERENCES students ON DELETE CASCADE ON UPDATE CASCADE,
        ADD FOREIGN KEY (course_id) REFERENCES courses ON DELETE CASCADE ON UPDATE CASCADE
"""


@pytest.fixture
def owner(database_url: str, catalog: None) -> Iterator[psycopg.Connection]:
    """Give a session of the system that owns the catalog, which cascades."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(CASCADES)
        yield connection


@pytest.fixture
def agree(service: Service, events: Events, rows: Read) -> Callable[[], Rows]:
    """Give a function that compares the table with a copy built from the stream, and returns what both hold."""

    def compare() -> Rows:
        service.relay(older_than=0)
        assert rows("*", "outbox") == []
        copy: dict[int, StudentState] = {}
        for event in events():
            follow(copy, Event.model_validate(event))
        assert len({event["id"] for event in events()}) == len(events()) == len(rows("*", "commands"))
        held = set(rows("student_id, course_id", "student_courses"))
        assert held == rows_of(copy)
        return held

    return compare


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


@pytest.mark.parametrize(
    ("leave", "come"),
    [
        ("DELETE FROM students WHERE id = 1", "INSERT INTO students (id) VALUES (1)"),
        ("DELETE FROM courses WHERE id = 10", "INSERT INTO courses (id) VALUES (10)"),
        ("DELETE FROM student_courses WHERE (student_id, course_id) = (1, 10)", "SELECT"),
        (
            "WITH course AS (DELETE FROM courses WHERE id = 10) DELETE FROM students WHERE id = 1",
            "WITH course AS (INSERT INTO courses (id) VALUES (10)) INSERT INTO students (id) VALUES (1)",
        ),
        ("TRUNCATE student_courses", "SELECT"),
    ],
)
def test_a_pair_that_vanishes_is_told_and_only_what_was_issued_later_brings_it_back(
    service: Service, owner: psycopg.Connection, agree: Callable[[], Rows], leave: LiteralString, come: LiteralString
) -> None:
    late = message(ENROLL, 1, [10], issued_at=ago(1))
    late_replace = message(REPLACE, 1, [10, 11], issued_at=ago(0.5))
    service.handle([message(ENROLL, 1, [10, 11], issued_at=ago(5)), message(ENROLL, 2, [10, 12], issued_at=ago(5))])
    owner.execute(leave)
    assert (1, 10) not in agree()
    owner.execute(come)
    service.handle([late])
    service.handle([late_replace])
    assert (1, 10) not in agree()
    service.handle([message(ENROLL, 1, [10])])
    assert (1, 10) in agree()


def test_an_id_that_comes_back_has_its_tombstones_and_the_mark_of_its_replace(
    service: Service, owner: psycopg.Connection, agree: Callable[[], Rows]
) -> None:
    service.handle([message(UNENROLL, 1, [10], issued_at=ago(5)), message(REPLACE, 2, [], issued_at=ago(5))])
    owner.execute("DELETE FROM students WHERE id IN (1, 2); DELETE FROM courses WHERE id = 10")
    owner.execute("INSERT INTO students (id) VALUES (1), (2); INSERT INTO courses (id) VALUES (10)")
    service.handle([message(ENROLL, student, [10], issued_at=ago(9)) for student in (1, 2)])
    assert agree() == set()


def test_a_pair_whose_stamp_lies_ahead_is_told_with_a_later_one(
    service: Service, owner: psycopg.Connection, agree: Callable[[], Rows]
) -> None:
    service.handle([message(ENROLL, 1, [10], issued_at=ago(-200))])
    owner.execute("DELETE FROM students WHERE id = 1")
    assert agree() == set()


def test_there_is_one_command_per_student_and_thousand_courses_and_it_says_why(
    service: Service, owner: psycopg.Connection, engine: Engine, rows: Read, agree: Callable[[], Rows]
) -> None:
    owner.execute("INSERT INTO courses (id) SELECT generate_series(1001, 3100)")
    for first in (1001, 2001, 3001):
        service.handle([message(ENROLL, 1, list(range(first, min(first + 1000, 3101)))), message(ENROLL, 2, [first])])
    before = {row[0] for row in rows("command_id", "commands")}
    owner.execute("DELETE FROM students WHERE id IN (1, 2)")
    with engine.connect() as connection:
        new = [queries.command(connection, row[0]) for row in rows("command_id", "commands") if row[0] not in before]
        entry = queries.history(connection, 1, 3100)[-1]
    told = sorted((record.student_id, len(record.effects.unenrolled)) for record in new)
    assert told == [(1, 100), (1, 1000), (1, 1000), (2, 3)]
    assert {taken_because(record) for record in new} == {"the student was deleted"}
    assert (entry.effect, entry.owns, entry.record.source) == ("unenrolled", True, "catalog:student-deleted")
    assert agree() == set()


@pytest.mark.parametrize(
    ("statement", "source"),
    [
        ("DELETE FROM students WHERE id = 1", "catalog:student-deleted"),
        ("DELETE FROM courses WHERE id = 10", "catalog:course-deleted"),
        ("DELETE FROM student_courses", "database:row-deleted"),
    ],
)
def test_what_a_producer_says_is_not_taken_for_a_deletion(
    service: Service, owner: psycopg.Connection, engine: Engine, statement: LiteralString, source: str
) -> None:
    forged = message(ENROLL, 1, [10], source=source)
    service.handle([forged])
    owner.execute(statement)
    with engine.connect() as connection:
        asked, taken = (entry.record for entry in queries.history(connection, 1, 10))
    assert (asked.command_id, taken_because(asked)) == (UUID(forged.task_id), None)
    assert (taken.source, taken_because(taken)) == (source, REASONS[source])


def test_a_deletion_that_is_rolled_back_is_not_told(
    service: Service, owner: psycopg.Connection, rows: Read, agree: Callable[[], Rows]
) -> None:
    service.handle([message(ENROLL, 1, [10])])
    with owner.transaction(force_rollback=True):
        owner.execute("DELETE FROM students WHERE id = 1")
    assert agree() == {(1, 10)}
    assert (rows("*", "tombstones"), len(rows("*", "commands"))) == ([], 1)


def test_the_worker_s_own_deletions_are_told_once(service: Service, agree: Callable[[], Rows], rows: Read) -> None:
    service.handle([message(ENROLL, 1, [10, 11])])
    service.handle([message(UNENROLL, 1, [10])])
    service.handle([message(REPLACE, 1, [])])
    assert agree() == set()
    assert len(rows("*", "commands")) == 3


def test_a_worker_of_before_tells_by_itself(service: Service, database_url: str, rows: Read) -> None:
    service.handle([message(ENROLL, 1, [10])])
    with psycopg.connect(database_url, application_name="enrollment worker") as connection:
        connection.execute("DELETE FROM student_courses")
    assert len(rows("*", "commands")) == 1


def test_without_a_cascade_the_rows_go_first_and_are_told(
    service: Service, database_url: str, agree: Callable[[], Rows]
) -> None:
    service.handle([message(ENROLL, 1, [10, 11]), message(ENROLL, 2, [10])])
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM student_courses WHERE student_id = 1")
        connection.execute("DELETE FROM students WHERE id = 1")
    assert agree() == {(2, 10)}


def test_a_role_without_rights_on_our_tables_may_delete_a_student(
    service: Service, owner: psycopg.Connection, agree: Callable[[], Rows]
) -> None:
    service.handle([message(ENROLL, 1, [10])])
    owner.execute("DROP ROLE IF EXISTS registrar")
    owner.execute("CREATE ROLE registrar; GRANT SELECT, DELETE ON students TO registrar")
    try:
        owner.execute("SET ROLE registrar")
        owner.execute("CREATE TEMP TABLE tombstones (student_id bigint); CREATE TEMP TABLE commands (id bigint)")
        with pytest.raises(InsufficientPrivilege):
            owner.execute("SELECT FROM public.commands")
        owner.execute("DELETE FROM students WHERE id = 1")
    finally:
        owner.execute("RESET ROLE; DROP OWNED BY registrar; DROP ROLE registrar")
    assert agree() == set()


@pytest.mark.parametrize("table", ["students", "courses"])
def test_the_id_of_who_is_enrolled_cannot_be_changed(
    service: Service, owner: psycopg.Connection, agree: Callable[[], Rows], table: LiteralString
) -> None:
    service.handle([message(ENROLL, 1, [10])])
    with pytest.raises(RestrictViolation, match="student 1 is enrolled in course 10"):
        owner.execute(f"UPDATE {table} SET id = id + 100 WHERE id IN (1, 10)")
    assert agree() == {(1, 10)}


@pytest.fixture
def deleting(owner: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give a function that lets all rows be deleted between what the next batch reads and what it writes."""
    write = ledger.write_changes

    def delete_first(*args: Any) -> None:
        monkeypatch.setattr(ledger, "write_changes", write)
        owner.execute("DELETE FROM student_courses")
        write(*args)

    return lambda: monkeypatch.setattr(ledger, "write_changes", delete_first)


@pytest.mark.parametrize("task", [ENROLL, UNENROLL, REPLACE])
@pytest.mark.parametrize("seconds", [3, -3])
def test_a_row_that_is_deleted_while_a_command_on_it_is_decided(
    service: Service, agree: Callable[[], Rows], deleting: Callable[[], None], task: str, seconds: float
) -> None:
    service.handle([message(ENROLL, 1, [10], issued_at=ago(9))])
    deleting()
    assert service.handle([message(task, 1, [10], issued_at=ago(seconds))]) == ["applied"]
    assert agree() == ({(1, 10)} if seconds < 0 and task != UNENROLL else set())
    service.handle([message(ENROLL, 1, [10], issued_at=ago(2))])
    agree()


def test_workers_and_sessions_that_delete_at_once_leave_table_and_copy_equal(
    owner: psycopg.Connection, database_url: str, publisher: Publisher, agree: Callable[[], Rows]
) -> None:
    def work(seed: int) -> None:
        random = Random(seed)  # noqa: S311 - any order will do
        own = make_engine(database_url, application_name="tests")
        mine = Service(own, publisher)
        for _ in range(40):
            tasks = random.choices((ENROLL, ENROLL, UNENROLL, REPLACE), k=5)
            courses = [random.sample(range(10, 15), 2) for _ in tasks]
            mine.handle(
                [
                    message(task, random.randint(1, 5), some, issued_at=ago(random.uniform(-0.1, 0.5)))
                    for task, some in zip(tasks, courses, strict=True)
                ]
            )
        own.dispose()

    def delete(seed: int) -> None:
        random = Random(seed)  # noqa: S311
        with psycopg.connect(owner.info.dsn, password=owner.info.password, autocommit=True) as session:
            for _ in range(60):
                goes = random.choice(("students WHERE id = 1", "students WHERE id = 3", "courses WHERE id = 12"))
                with suppress(DeadlockDetected), session.transaction():
                    session.execute("DELETE FROM student_courses WHERE student_id = %s", [random.randint(1, 5)])
                    session.execute(f"DELETE FROM {goes}")
                session.execute("INSERT INTO students (id) SELECT generate_series(1, 5) ON CONFLICT DO NOTHING")
                session.execute("INSERT INTO courses (id) SELECT generate_series(10, 14) ON CONFLICT DO NOTHING")

    with ThreadPoolExecutor(4) as pool:
        done = [*(pool.submit(work, seed) for seed in (1, 2)), *(pool.submit(delete, seed) for seed in (3, 4))]
    for each in done:
        each.result()
    agree()


def test_a_row_that_another_hand_puts_back_is_taken_by_the_next_unenroll(
    service: Service, owner: psycopg.Connection, agree: Callable[[], Rows]
) -> None:
    service.handle([message(UNENROLL, 1, [10], issued_at=ago(9))])
    owner.execute("INSERT INTO student_courses (student_id, course_id) VALUES (1, 10)")
    service.handle([message(UNENROLL, 1, [10], issued_at=ago(3))])
    assert agree() == set()


def test_a_record_that_another_hand_deletes_does_not_stop_the_relay(
    service: Service, owner: psycopg.Connection, events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(service._relay, "publish", lambda *_: None)
        service.handle([message(ENROLL, 1, [10]), message(ENROLL, 2, [10])])
    owner.execute("DELETE FROM commands WHERE student_id = 1")
    service.handle([message(ENROLL, 3, [10])])
    service.relay(older_than=0)
    assert sorted(event["data"]["student_id"] for event in events()) == [2, 3]
    with service._batches._engine.connect() as connection:
        assert outbox.backlog(connection)[0] == 0
