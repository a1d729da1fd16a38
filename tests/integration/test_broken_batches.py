"""Batches of which many commands break: they are split, and meanwhile the worker gives signs of life."""

from collections import Counter
from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import Engine, event, text
from structlog.testing import capture_logs

from enrollment.names import ENROLL
from tests.integration.conftest import message
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture
def errors(worker_engine: Engine) -> list[object]:
    """Give what the database refused, in order."""
    found: list[object] = []
    event.listen(worker_engine, "handle_error", lambda context: found.append(context.original_exception))
    return found


def test_each_attempt_that_fails_is_followed_by_a_sign_of_life_and_made_once(
    service: Service, engine: Engine, rows: Rows, errors: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE student_courses ADD CONSTRAINT odd CHECK (course_id <> 13)"))
    monkeypatch.setattr("tasks.outages.PULSE", 0)
    signs: list[int] = []
    service.handle([message(ENROLL, 1, [13]) for _ in range(8)], lambda: signs.append(len(errors)))
    assert len(errors) == 15, "eight, and all that they were halves of"
    assert set(range(1, 16)) <= set(signs)
    assert len(rows("*", "dead_letters")) == 8


def test_the_log_warns_of_each_command_that_could_not_be_processed(service: Service, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE student_courses ADD CONSTRAINT odd CHECK (course_id <> 13)"))
    sent = [message(ENROLL, 1, [10]), message(ENROLL, 2, [13]), message(ENROLL, 3, [13])]
    with capture_logs() as logs:
        service.handle(sent)
    warned = [(it["key"], it["code"]) for it in logs if it["event"] == "dead_letter" and it["log_level"] == "warning"]
    assert sorted(warned) == sorted((it.task_id, "processing_failed") for it in sent[1:])


def test_every_transaction_is_timed_also_that_which_buries_a_command(
    service: Service, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE student_courses ADD CONSTRAINT odd CHECK (course_id <> 13)"))
    stages: list[tuple[str, float]] = []
    monkeypatch.setattr("worker.metrics.staged", lambda name, seconds: stages.append((name, seconds)))
    began = monotonic()
    service.handle([message(ENROLL, 1, [10]), message(ENROLL, 2, [13])])
    seconds = monotonic() - began
    assert Counter(name for name, _ in stages) == {"transaction": 2, "commit": 2, "publish": 1}
    assert all(0 < each < seconds for _, each in stages), stages


def test_a_worker_that_is_told_to_stop_while_it_splits_stops(
    service: Service, engine: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(BaseException):
        pass

    def stop() -> None:
        if rows("*", "dead_letters"):
            raise Stop

    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE student_courses ADD CONSTRAINT odd CHECK (course_id <> 13)"))
    monkeypatch.setattr("tasks.outages.PULSE", 0)
    sent = [message(ENROLL, 1, [13]) for _ in range(8)]
    with pytest.raises(Stop):
        service.handle(sent, stop)
    assert len(rows("*", "dead_letters")) == 1
    service.handle(sent)
    assert len(rows("*", "dead_letters")) == 8


def test_dead_letters_of_one_key_in_one_batch_break_nothing(service: Service, rows: Rows, errors: list[object]) -> None:
    first = message(ENROLL, 1, [10])
    again = [message(ENROLL, 2, [11], task_id=first.task_id) for _ in range(2)]
    outcomes = service.handle([first, *again])
    assert outcomes == ["applied", *["dead letter command_id_reused"] * 2]
    assert errors == []
    assert len(rows("*", "dead_letters")) == 1
