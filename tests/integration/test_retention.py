"""Retention on a real database: what is old goes, and does not come back."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.exc import DBAPIError

from enrollment.commands import format_time
from enrollment.names import ENROLL, UNENROLL
from models import reconciling, retention
from models.engine import WORKER, WORKER_NAME, make_engine
from tasks.archive import ArchiveError, write
from tasks.retention import retain
from tests.integration.conftest import message
from worker.publishing import Publisher
from worker.service import Service

DAYS = 30
Rows = Callable[..., list[tuple[Any, ...]]]


def ago(days: float) -> str:
    return format_time(datetime.now(UTC) - timedelta(days=days))


def age(engine: Engine, days: float) -> None:
    """Make everything that is there so much older."""
    by = {"by": timedelta(days=days)}
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE commands SET processed_at = processed_at - :by, issued_at = issued_at - :by"), by
        )
        for table in ("tombstones", "replace_marks", "student_courses"):
            connection.execute(text(f"UPDATE {table} SET issued_at = issued_at - :by"), by)
        connection.execute(text("UPDATE dead_letters SET discarded_at = discarded_at - :by"), by)


def everything(engine: Engine) -> int:
    return retain(engine, DAYS, budget=60, at_once=True)


def test_old_commands_and_their_marks_go_and_the_enrollments_stay(service: Service, engine: Engine, rows: Rows) -> None:
    service.handle([message(ENROLL, 1, [10, 11], issued_at=ago(0.2)), message(UNENROLL, 1, [11], issued_at=ago(0.1))])
    age(engine, 40)
    service.handle([message(ENROLL, 2, [10], issued_at=ago(1))])
    assert everything(engine) == 3  # two commands, a tombstone
    assert rows("student_id", "commands") == [(2,)]
    assert rows("*", "tombstones") == []
    assert rows("student_id, course_id", "student_courses") == [(1, 10), (2, 10)]


def test_a_command_that_waits_stays_however_old_it_is(service: Service, engine: Engine, rows: Rows) -> None:
    service.handle([message(ENROLL, 1, [77], issued_at=ago(0), wait_until=ago(-100))])
    age(engine, 40)
    assert everything(engine) == 0
    assert rows("outcome", "commands") == [("waiting",)]


def test_a_worker_that_keeps_commands_for_days_refuses_what_is_older(
    database_url: str, publisher: Publisher, catalog: None, rows: Rows
) -> None:
    engine = make_engine(database_url, application_name=WORKER_NAME, options={**WORKER, retention.SETTING: str(DAYS)})
    service = Service(engine, publisher, days=DAYS)
    service.handle([message(ENROLL, 1, [10], issued_at=ago(31)), message(ENROLL, 2, [10], issued_at=ago(29))])
    engine.dispose()
    assert rows("student_id, errors->0->>'code'", "commands") == [(1, "too_old"), (2, None)]


def test_a_command_whose_event_is_not_published_stays(service: Service, engine: Engine, rows: Rows) -> None:
    service.handle([message(ENROLL, 1, [10], issued_at=ago(0)), message(ENROLL, 2, [10], issued_at=ago(0))])
    with engine.begin() as connection:
        connection.execute(
            text("""
            INSERT INTO outbox (batch_id, command_ids, committed_at)
            SELECT gen_random_uuid(), array_agg(command_id), now() - interval '40 days'
              FROM commands WHERE student_id = 2
        """)
        )
    age(engine, 40)
    everything(engine)
    assert rows("student_id", "commands") == [(2,)]


def test_an_old_command_that_a_repair_put_into_the_outbox_stays(service: Service, engine: Engine, rows: Rows) -> None:
    service.handle([message(ENROLL, 1, [10], issued_at=ago(0))])
    age(engine, 40)
    with engine.begin() as connection:
        reconciling.owe(connection, connection.execute(text("SELECT command_id FROM commands")).scalars().all())
    with engine.connect() as connection:
        assert retention.state(connection, datetime.now(UTC) - timedelta(days=DAYS)).unpublished == 1
    assert everything(engine) == 0
    assert rows("student_id", "commands") == [(1,)]


def test_a_repair_and_a_step_of_retention_wait_for_each_other(service: Service, engine: Engine) -> None:
    """Else the step could remove what the repair has put into the outbox since it looked."""
    with engine.begin() as step, engine.begin() as repair:
        retention.step(step, DAYS, 2)
        repair.execute(text("SET LOCAL lock_timeout = '50ms'"))
        with pytest.raises(DBAPIError, match="lock timeout"):
            reconciling.lock(repair)


def test_rows_from_before_the_feed_go_in_any_order(service: Service, engine: Engine, rows: Rows) -> None:
    service.handle([message(ENROLL, n, [10], issued_at=ago(0)) for n in range(1, 6)])
    with engine.begin() as connection:
        connection.execute(text("UPDATE commands SET position = 0"))
        connection.execute(
            text("""
            UPDATE commands SET processed_at = now() - interval '40 days', issued_at = now() - interval '40 days'
             WHERE student_id <> 3
        """)
        )
    everything(engine)
    assert rows("student_id", "commands") == [(3,)]


def test_a_decided_dead_letter_goes_and_an_open_one_stays(service: Service, engine: Engine, rows: Rows) -> None:
    service.handle([message(ENROLL, 1, [], task_id=uuid4()) for _ in range(2)])
    with engine.begin() as connection:
        connection.execute(text("UPDATE dead_letters SET discarded_at = now() WHERE id = 1"))
    age(engine, 40)
    everything(engine)
    assert rows("id", "dead_letters") == [(2,)]


def test_one_step_is_made_at_a_time_and_the_walk_goes_on_where_it_was(service: Service, engine: Engine) -> None:
    service.handle([message(ENROLL, n, [10], issued_at=ago(0)) for n in range(1, 6)])
    age(engine, 40)

    def step() -> retention.Step | None:
        with engine.begin() as connection:
            return retention.step(connection, DAYS, 2)

    step()  # promises first
    with engine.begin() as one, engine.begin() as other:
        assert retention.step(one, DAYS, 2) == retention.Step(retention.Part.COMMANDS, 2, 2, done=False)
        assert retention.step(other, DAYS, 2) is None
    assert [it and it.removed for it in (step(), step())] == [2, 1]
    while (it := step()) and not it.done:
        pass
    assert step() is None  # until tomorrow


def test_the_report_tells_what_goes_and_what_stays(service: Service, engine: Engine) -> None:
    service.handle([message(ENROLL, n, [10], issued_at=ago(0)) for n in range(1, 6)])
    age(engine, 40)
    service.handle([message(ENROLL, 1, [11])])
    before = datetime.now(UTC) - timedelta(days=DAYS)
    with engine.connect() as connection:
        going = {it.table: it.rows for it in retention.going(connection, before)}
        state = retention.state(connection, before)
    assert going == {"commands": 5, "tombstones": 0, "replace_marks": 0, "dead_letters": 0}
    assert (state.forgotten_before, state.removed) == (None, 0)


def test_an_archive_holds_the_events_as_they_stood_on_the_stream(
    service: Service, engine: Engine, events: Callable[[], list[Any]], redis_client: Any, tmp_path: Path
) -> None:
    service.handle([message(ENROLL, n, [10, 99 if n == 3 else 11], issued_at=ago(0)) for n in range(1, 6)])
    archived = write(engine, datetime.now(UTC), tmp_path / "commands.jsonl")
    told = sorted(fields["event"] for _, fields in redis_client.xrange("enrollment.events"))
    assert archived.commands == 5
    assert sorted((tmp_path / "commands.jsonl").read_text().splitlines()) == told


def test_an_archive_is_not_overwritten(service: Service, engine: Engine, tmp_path: Path) -> None:
    """It may be the only place by now of what is in it."""
    path = tmp_path / "commands.jsonl"
    path.write_text("of yesterday")
    with pytest.raises(ArchiveError, match="another name"):
        write(engine, datetime.now(UTC), path)
    assert path.read_text() == "of yesterday"


def test_an_archive_of_the_future_is_refused(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="past"):
        write(engine, datetime.now(UTC) + timedelta(days=1), tmp_path / "commands.jsonl")


def test_an_archive_holds_nothing_that_waits(service: Service, engine: Engine, tmp_path: Path) -> None:
    service.handle([message(ENROLL, 1, [77], issued_at=ago(0), wait_until=ago(-300))])
    age(engine, 40)
    assert write(engine, datetime.now(UTC) - timedelta(days=1), tmp_path / "commands.jsonl").commands == 0
