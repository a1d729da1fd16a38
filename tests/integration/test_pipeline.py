"""Statements that are sent together: what is answered, in which order they run, and what is left after a fault."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError

from models.direct import ask, execute_at_once, session_of
from models.session import Session, meanwhile
from tests.integration.conftest import message
from worker.service import Service

PUT = text("INSERT INTO courses (id, code) VALUES (:id, :code)")
COUNT = text("SELECT count(*) FROM courses")


@pytest.fixture
def connection(worker_engine: Engine) -> Iterator[Connection]:
    with worker_engine.connect() as connection:
        yield connection


@pytest.fixture
def round_trips(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Count how often a session waits for its server."""
    waited: list[None] = []
    wait = Session.wait

    def note(session: Session, gen: Any, *how: Any, **more: Any) -> Any:
        waited.append(None)
        return wait(session, gen, *how, **more)

    monkeypatch.setattr(Session, "wait", note)
    return waited


def count(engine: Engine) -> int:
    with engine.begin() as own:
        return int(own.scalar(COUNT) or 0)


def test_a_batch_takes_three_round_trips_to_the_database(service: Service, round_trips: list[None]) -> None:
    service.handle([message(student_id=1, course_ids=[10])])  # connects
    round_trips.clear()
    service.handle([message(student_id=n, course_ids=[10, 11]) for n in range(2, 6)])
    assert len(round_trips) == 3  # lock and read; write and commit; strike off the outbox


def test_statements_run_in_order_whoever_sends_them(connection: Connection, round_trips: list[None]) -> None:
    with connection.begin():
        ask(connection, PUT, {"id": 1, "code": "a"})
        before = ask(connection, COUNT, {})
        ask(connection, PUT, {"id": 2, "code": "b"})
        assert round_trips == []
        assert connection.scalar(COUNT) == 2
        assert before.rows() == [(1,)]
        ask(connection, PUT, {"id": 3, "code": "c"})
    assert count(connection.engine) == 3


def test_where_one_fails_nothing_is_committed_and_the_session_goes_on(connection: Connection) -> None:
    def fail(*, look: bool) -> None:
        with connection.begin():
            for code in "ab":
                ask(connection, PUT, {"id": 1, "code": code})
            last = ask(connection, COUNT, {})
            if look:
                last.rows()

    for look in (False, True):
        with pytest.raises(IntegrityError):
            fail(look=look)
    assert count(connection.engine) == 0
    with connection.begin():
        ask(connection, PUT, {"id": 1, "code": "a"})
    assert count(connection.engine) == 1


def test_what_was_not_sent_is_rolled_back(connection: Connection) -> None:
    with connection.begin() as transaction:
        ask(connection, PUT, {"id": 1, "code": "a"})
        transaction.rollback()
    with connection.begin():
        assert ask(connection, COUNT, {}).rows() == [(0,)]


def test_a_statement_commits_by_itself(connection: Connection) -> None:
    execute_at_once(connection, PUT, {"id": 1, "code": "a"})
    assert count(connection.engine) == 1


def test_what_follows_a_fault_is_prepared_all_the_same(connection: Connection) -> None:  # PgBouncer takes it for so
    after = "SELECT 'after a fault'"

    def fail() -> None:
        with connection.begin():
            ask(connection, text("SELECT 1 / 0"), {})
            ask(connection, text(after), {})

    with pytest.raises(DBAPIError):
        fail()
    prepared = text("SELECT count(*) FROM pg_prepared_statements WHERE statement IN ('COMMIT', :after)")
    assert connection.scalar(prepared, {"after": after}) == 2


def test_a_session_may_change_its_isolation(worker_engine: Engine) -> None:
    for level in ("READ COMMITTED", "REPEATABLE READ", "READ COMMITTED"):
        with worker_engine.connect().execution_options(isolation_level=level) as connection, connection.begin():
            assert ask(connection, text("SHOW transaction_isolation"), {}).rows() == [(level.lower(),)]


@pytest.mark.parametrize("command", ["DEALLOCATE ALL", "DISCARD ALL"])
def test_what_a_pooler_forgets_is_prepared_anew(service: Service, worker_engine: Engine, command: str) -> None:
    service.handle([message(student_id=1, course_ids=[10])])
    with worker_engine.connect() as connection:
        session_of(connection).pgconn.exec_(command.encode())
    assert service.handle([message(student_id=1, course_ids=[11])]) == ["applied"]


def test_a_column_that_changes_its_type_spoils_no_command(
    service: Service, load: Callable[[str], None], rows: Callable[[str, str], list[Any]]
) -> None:
    service.handle([message(student_id=1, course_ids=[10])])
    load("ALTER TABLE student_courses DROP CONSTRAINT student_courses_student_id_fkey")
    load("ALTER TABLE students ALTER id TYPE integer")
    assert service.handle([message(student_id=1, course_ids=[11])]) == ["applied"]
    assert rows("code", "dead_letters") == []


@pytest.mark.parametrize("when", ["before", "during"])
def test_a_session_that_is_ended_is_a_lost_connection(connection: Connection, engine: Engine, when: str) -> None:
    def work() -> None:
        with connection.begin():
            [[pid]] = ask(connection, text("SELECT pg_backend_pid()"), {}).rows()
            ask(connection, PUT, {"id": 1, "code": "a"})
            if when == "before":
                with engine.begin() as other:
                    other.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": pid})
            else:
                ask(connection, text("SELECT pg_terminate_backend(pg_backend_pid()), pg_sleep(5)"), {})
            ask(connection, COUNT, {}).rows()

    with pytest.raises(OperationalError) as failed:
        work()
    assert failed.value.connection_invalidated
    with connection.begin():
        assert ask(connection, COUNT, {}).rows() == [(0,)]


def test_who_is_told_to_stop_while_waiting_stops(connection: Connection) -> None:
    def stop() -> None:
        raise SystemExit

    def wait() -> None:
        with connection.begin(), meanwhile(stop):
            ask(connection, text("SELECT pg_sleep(5)"), {}).rows()

    with pytest.raises(SystemExit):
        wait()
    with connection.begin():
        assert ask(connection, COUNT, {}).rows() == [(0,)]


def test_an_answer_is_waited_for_with_signs_of_life(connection: Connection) -> None:
    signs: list[None] = []
    with connection.begin():
        session = connection.connection.driver_connection
        assert isinstance(session, Session)
        session.quiet = lambda: signs.append(None)
        ask(connection, text("SELECT pg_sleep(3.5)"), {}).rows()
    assert 2 <= len(signs) <= 4
