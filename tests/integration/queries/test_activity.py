"""What the overview counts: all of a window where that is little, a part of its time where it is much."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from enrollment.names import ENROLL
from models.activity import WINDOWS, Activity, activity
from tests.integration.conftest import message
from worker.service import Service

MANY = text("""
    INSERT INTO commands (command_id, outcome, enrolled, unenrolled, unchanged, superseded, errors, processed_at,
                          content_hash)
    SELECT gen_random_uuid(), 'applied', '{}', '{}', '{}', '{}', '[]',
           clock_timestamp() - make_interval(secs => :ago + g * :apart), '' FROM generate_series(1, :count) AS g
""")


def put(engine: Engine, count: int, *, apart: float, ago: float = 0) -> None:
    with engine.begin() as connection:
        connection.execute(MANY, {"count": count, "apart": apart, "ago": ago})
        connection.execute(text("ANALYZE commands"))  # as autovacuum does after so many


def of_the(window: str, engine: Engine, *, most: int = 1000) -> Activity:
    with engine.connect() as connection:
        return activity(connection, WINDOWS[window], most=most)


def test_commands_are_counted_by_outcome_source_and_code(service: Service, engine: Engine) -> None:
    sent = datetime.now(UTC) - timedelta(seconds=30)
    service.handle([message(ENROLL, 1, [10], source="portal", issued_at=sent.isoformat())])
    service.handle([message(ENROLL, 1, [99], source="portal"), message(ENROLL, 4711, [10])])
    found = of_the("hour", engine)
    assert (found.share, found.total.applied, found.total.rejected) == (1, 1, 2)
    assert [(it.source, it.commands, it.rejected) for it in found.sources] == [("portal", 2, 1), (None, 1, 1)]
    assert found.codes == {"unknown_courses": 1, "unknown_student": 1}
    assert sum(step.applied + step.rejected for step in found.steps[-2:]) == 3  # a minute may have ended
    assert found.total.slow is not None
    assert 20 < found.total.slow < 60


def test_a_command_that_waited_for_its_time_is_counted_from_there(service: Service, engine: Engine) -> None:
    now = datetime.now(UTC)
    sent = UUID(int=int((now - timedelta(days=7)).timestamp() * 1000) << 80 | 7 << 76 | 2 << 62)
    at = (now - timedelta(seconds=30)).isoformat()
    service.handle([message(ENROLL, 1, [10], effective_at=at, task_id=sent)])
    slow = of_the("hour", engine).total.slow
    assert slow is not None
    assert 20 < slow < 600


def test_a_window_without_commands_has_empty_steps(engine: Engine) -> None:
    found = of_the("day", engine)
    assert len(found.steps) == WINDOWS["day"].steps
    assert not any(step.applied or step.rejected or step.median for step in (found.total, *found.steps))


def test_what_is_older_than_the_window_is_not_counted(engine: Engine) -> None:
    put(engine, 10, apart=1, ago=7200)
    assert of_the("hour", engine).total.applied == 0
    assert of_the("day", engine).total.applied == 10


def test_of_very_many_commands_a_part_of_the_time_is_counted(engine: Engine) -> None:
    put(engine, 60_000, apart=0.05)  # the last 50 minutes
    found = of_the("hour", engine)
    assert found.share == 4**-3
    assert found.total.applied == pytest.approx(60_000, rel=0.1)
    full = [step.applied for step in found.steps if step.applied][1:-1]
    assert all(count == pytest.approx(1200, rel=0.4) for count in full)


def test_the_window_is_found_by_the_index_of_times(engine: Engine) -> None:
    put(engine, 50_000, apart=60, ago=3600)
    read = text("SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'commands'")
    with engine.begin() as connection:
        activity(connection, WINDOWS["hour"])
        activity(connection, WINDOWS["day"])
        assert connection.execute(read).scalar_one() == 0
