"""A whole table that somebody else has locked: what needs it waits, and nothing is lost."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import Engine, text

from enrollment.names import ENROLL
from models import holders
from tasks.caution import Blocked
from tests.integration.conftest import message
from tests.integration.locked import held, release_all
from worker.service import Service

pytestmark = pytest.mark.usefixtures("at_leisure")

Rows = Callable[..., list[tuple[Any, ...]]]
Events = Callable[[], list[dict[str, Any]]]


BLOCKING = [
    ("students", "EXCLUSIVE"),
    ("students", "ACCESS EXCLUSIVE"),
    ("courses", "ACCESS EXCLUSIVE"),
    ("student_courses", "ACCESS EXCLUSIVE"),
    ("commands", "SHARE ROW EXCLUSIVE"),
    ("commands", "ACCESS EXCLUSIVE"),
    ("outbox", "EXCLUSIVE"),
    ("tombstones", "ACCESS EXCLUSIVE"),
    ("deferred_commands", "ACCESS EXCLUSIVE"),
]


@pytest.mark.parametrize("lock", BLOCKING, ids=" ".join)
def test_a_locked_table_is_told_at_once_and_nothing_is_lost(
    service: Service, engine: Engine, rows: Rows, events: Events, lock: tuple[str, str]
) -> None:
    table, mode = lock
    sent = [message(ENROLL, 1, [10]), message(ENROLL, 2, [11])]
    with held(engine, f"LOCK TABLE {table} IN {mode} MODE"):
        for _ in range(2):
            with pytest.raises(Blocked):
                service.handle(sent)
        service.relay()
        service.release()
        [session] = holders.holders_of_tables(service._batches._engine)
        assert (session.application, session.state) == ("tests", "idle in transaction")
    assert service.handle(sent) == ["applied", "applied"]
    assert len(events()) == len(rows("*", "student_courses")) == 2


@pytest.mark.parametrize(("table", "mode"), [("courses", "EXCLUSIVE"), ("student_courses", "SHARE")])
def test_a_table_that_can_be_read_costs_what_writes_it_alone(
    service: Service, engine: Engine, rows: Rows, table: str, mode: str
) -> None:
    service.handle([message(ENROLL, 1, [11])])
    late = message(ENROLL, 1, [11], issued_at="2026-01-01T00:00:00Z")
    sent = [message(ENROLL, 2, [10]), message(ENROLL, 2, [99]), message(ENROLL, "x", [10]), late]
    with held(engine, f"LOCK TABLE {table} IN {mode} MODE"):
        outcomes = service.handle(sent)
        assert [outcome.split()[0] for outcome in outcomes] == ["deferred:", "rejected", "rejected", "applied"]
        assert service.release() is not None
    release_all(service)
    assert rows("student_id, course_id", "student_courses") == [(1, 11), (2, 10)]


@pytest.mark.parametrize("table", ["students", "courses"])
def test_a_table_that_others_only_write_to_costs_nothing(service: Service, engine: Engine, table: str) -> None:
    with held(engine, f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE"):
        assert service.handle([message(ENROLL, 2, [10])]) == ["applied"]


def test_a_migration_that_waits_for_a_table_is_told_as_well(service: Service, engine: Engine) -> None:
    with ThreadPoolExecutor(1) as pool:
        with held(engine, "SELECT FROM commands"):
            waiting = pool.submit(migrate_patiently, engine)
            until_waiting(engine)
            with pytest.raises(Blocked):
                service.handle([message(ENROLL, 1, [10])])
        waiting.result()


def migrate_patiently(engine: Engine) -> None:
    with held(engine, "LOCK TABLE commands IN ACCESS EXCLUSIVE MODE"):
        pass


def until_waiting(engine: Engine) -> None:
    with engine.connect() as connection:
        while not connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted")).scalar_one():
            connection.rollback()
