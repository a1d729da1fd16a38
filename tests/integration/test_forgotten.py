"""Commands that retention has removed, and that come again all the same."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import Engine, text

from enrollment.names import ENROLL, UNENROLL, WITHDRAW
from models import retention
from tests.integration.conftest import message
from tests.integration.test_retention import DAYS, age, ago, everything
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]
Events = Callable[[], list[dict[str, Any]]]


def told(events: Events, command_id: str) -> list[str]:
    return [event["type"].split(".")[1] for event in events() if event["id"] == command_id]


def test_a_command_that_said_when_is_refused(service: Service, engine: Engine, rows: Rows) -> None:
    enroll = message(ENROLL, 1, [10], task_id=uuid4(), issued_at=ago(40))
    service.handle([enroll, message(UNENROLL, 1, [10], issued_at=ago(39))])
    age(engine, 40)
    everything(engine)
    service.handle([enroll])
    assert rows("student_id", "student_courses") == []
    assert rows("outcome, errors->0->>'code'", "commands") == [("rejected", "too_old")]


@pytest.mark.parametrize("more", [{}, {"wait_until": ago(-1)}], ids=["no time", "only how long it waits"])
def test_a_command_that_said_no_time_is_a_repeat_still(
    service: Service, engine: Engine, rows: Rows, more: dict[str, str]
) -> None:
    enroll = message(ENROLL, 1, [10], task_id=uuid4(), **more)
    service.handle([enroll])
    service.handle([message(UNENROLL, 1, [10])])
    age(engine, 40)
    everything(engine)
    assert service.handle([enroll]) == ["repeat"]
    assert rows("student_id", "student_courses") == []
    assert rows("command_id", "commands") == []


def test_an_invalid_command_is_a_repeat_still(service: Service, engine: Engine, events: Events) -> None:
    invalid = message(ENROLL, 1, [], task_id=uuid4(), issued_at=ago(0))
    service.handle([invalid])
    age(engine, 40)
    everything(engine)
    assert service.handle([invalid]) == ["repeat"]
    assert told(events, invalid.task_id) == ["rejected"]


def test_a_command_with_a_stamp_far_ahead_is_a_repeat_until_that_is_old(
    service: Service, engine: Engine, rows: Rows, events: Events
) -> None:
    early = message(ENROLL, 1, [10], task_id=uuid4(), issued_at=ago(-1))
    service.handle([early])
    with engine.begin() as connection:
        connection.execute(text("UPDATE commands SET processed_at = processed_at - interval '40 days'"))
    assert everything(engine) == 0
    assert service.handle([early]) == ["repeat"]
    assert told(events, early.task_id) == ["rejected"]
    age(engine, 40)
    everything(engine)
    assert rows("command_id", "commands") == []


def test_a_withdrawn_command_stays_withdrawn_before_its_time(
    service: Service, engine: Engine, rows: Rows, events: Events
) -> None:
    scheduled = message(ENROLL, 1, [10], task_id=uuid4(), issued_at=ago(0), effective_at=ago(-400))
    service.handle([scheduled])
    service.handle([message(WITHDRAW, scheduled.task_id)])
    with engine.begin() as connection:
        connection.execute(text("UPDATE commands SET processed_at = processed_at - interval '40 days'"))
    everything(engine)
    assert service.handle([scheduled]) == ["repeat"]
    assert rows("command_id", "deferred_commands") == []
    assert told(events, scheduled.task_id) == ["waiting", "withdrawn"]


def test_a_withdraw_is_a_repeat_and_comes_too_late_for_what_was_decided(
    service: Service, engine: Engine, events: Events
) -> None:
    done = message(ENROLL, 1, [10], task_id=uuid4())
    late = message(WITHDRAW, done.task_id)
    service.handle([done])
    service.handle([late])
    age(engine, 40)
    everything(engine)
    another = message(WITHDRAW, done.task_id)
    assert service.handle([late]) == ["repeat"]
    assert service.handle([another]) == ["rejected already_decided [target]"]
    assert told(events, done.task_id) == ["applied"]


def test_a_page_of_nothing_but_unpublished_commands_is_passed_over(service: Service, engine: Engine) -> None:
    service.handle([message(ENROLL, 2, [10], issued_at=ago(0))])
    with engine.begin() as connection:
        connection.execute(
            text("""
            INSERT INTO outbox (batch_id, command_ids, committed_at)
            SELECT gen_random_uuid(), array_agg(command_id), now() - interval '40 days' FROM commands
        """)
        )
    age(engine, 40)
    assert everything(engine) == 0


def test_the_report_counts_nothing_that_waits(service: Service, engine: Engine) -> None:
    service.handle([message(ENROLL, 1, [77], issued_at=ago(0), wait_until=ago(-300))])
    age(engine, 40)
    with engine.connect() as connection:
        going = retention.going(connection, datetime.now(UTC) - timedelta(days=DAYS))
    assert [it.rows for it in going] == [0, 0, 0, 0]
