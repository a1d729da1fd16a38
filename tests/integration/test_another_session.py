"""What another session of the database does to our tables: it is waited out, nothing is lost and nobody dies of it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import Any, LiteralString

import psycopg
import pytest
from sqlalchemy import make_url

from enrollment.names import ENROLL, REPLACE, UNENROLL
from models.engine import make_engine
from tests.integration.conftest import message
from worker.publishing import Publisher
from worker.service import Service

Read = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def colleague(database_url: str, catalog: None) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def service_without_power(colleague: psycopg.Connection, database_url: str, publisher: Publisher) -> Iterator[Service]:
    """Give a service whose role has the rights that it was granted, and no others."""
    colleague.execute("DROP ROLE IF EXISTS clerk")
    colleague.execute("CREATE ROLE clerk LOGIN PASSWORD 'clerk'")
    colleague.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk")
    url = make_url(database_url).set(username="clerk", password="clerk").render_as_string(hide_password=False)
    own = make_engine(url, application_name="tests")
    yield Service(own, publisher)
    own.dispose()
    colleague.execute("DROP OWNED BY clerk; DROP ROLE clerk")


@pytest.mark.parametrize(
    ("does", "undoes"),
    [
        (
            "ALTER TABLE student_courses RENAME issued_at TO at",
            "ALTER TABLE student_courses RENAME at TO issued_at",
        ),
        (
            "ALTER TABLE student_courses DROP CONSTRAINT student_courses_pkey",
            "ALTER TABLE student_courses ADD PRIMARY KEY (student_id, course_id)",
        ),
        ("ALTER TABLE commands ADD COLUMN cost_centre text NOT NULL", "ALTER TABLE commands DROP COLUMN cost_centre"),
        ("REVOKE INSERT ON commands FROM clerk", "GRANT INSERT ON commands TO clerk"),
        ("ALTER TABLE courses RENAME TO modules", "ALTER TABLE modules RENAME TO courses"),
    ],
)
def test_a_table_that_was_changed_is_waited_for(
    service_without_power: Service,
    colleague: psycopg.Connection,
    rows: Read,
    does: LiteralString,
    undoes: LiteralString,
) -> None:
    waits = Event()
    colleague.execute("INSERT INTO tombstones VALUES (1, 10, '2020-01-01Z', gen_random_uuid())")
    colleague.execute(does)
    sent = [message(ENROLL, 1, [10]), message(REPLACE, 2, [11]), message(UNENROLL, 3, [12])]
    with ThreadPoolExecutor(1) as pool:
        results = pool.submit(service_without_power.handle, sent, waits.set)
        try:
            assert waits.wait(30)
        finally:
            colleague.execute(undoes)
        assert results.result() == ["applied"] * 3
    assert rows("*", "dead_letters") == []
    assert rows("student_id, course_id", "student_courses") == [(1, 10), (2, 11)]


@pytest.mark.parametrize(
    "statement",
    [
        "DROP INDEX student_courses_course_id_student_id_idx",
        "VACUUM FULL student_courses",
        "REINDEX TABLE commands",
        "ALTER TABLE student_courses ADD COLUMN grade text",
        "ALTER TABLE commands ALTER COLUMN source TYPE varchar(200)",
        "UPDATE student_courses SET issued_at = NULL, command_id = NULL",
        "DELETE FROM tombstones",
        "DELETE FROM commands",
    ],
)
def test_work_goes_on_after_it(
    service: Service, colleague: psycopg.Connection, rows: Read, statement: LiteralString
) -> None:
    before = [message(ENROLL, 1, [10, 11]), message(UNENROLL, 1, [11]), message(REPLACE, 2, [12])]
    after = [message(ENROLL, 1, [11]), message(UNENROLL, 1, [10]), message(REPLACE, 2, [10])]
    service.handle(before)
    colleague.execute(statement)
    assert service.handle(after) == ["applied"] * 3
    assert rows("student_id, course_id", "student_courses") == [(1, 11), (2, 10)]
    assert rows("*", "dead_letters") == []


def test_a_transaction_that_stays_open_with_an_old_snapshot_holds_up_nothing(
    service: Service, colleague: psycopg.Connection, rows: Read
) -> None:
    with colleague.transaction():
        colleague.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert colleague.execute("SELECT count(*) FROM student_courses").fetchone() == (0,)
        assert service.handle([message(ENROLL, 1, [10]), message(UNENROLL, 1, [10])]) == ["applied"] * 2
        assert colleague.execute("SELECT count(*) FROM student_courses").fetchone() == (0,)
    assert len(rows("*", "commands")) == 2


@pytest.mark.parametrize(
    "statement",
    ["ALTER TABLE student_courses DISABLE TRIGGER ALL", "SET session_replication_role = replica"],
)
def test_who_turns_triggers_off_deletes_without_a_word(
    service: Service, colleague: psycopg.Connection, rows: Read, statement: LiteralString
) -> None:
    service.handle([message(ENROLL, 1, [10])])
    colleague.execute(statement)
    colleague.execute("DELETE FROM student_courses")
    assert rows("*", "outbox") == rows("*", "tombstones") == []
    assert service.handle([message(ENROLL, 1, [10])]) == ["applied"]
    assert rows("student_id, course_id", "student_courses") == [(1, 10)]
