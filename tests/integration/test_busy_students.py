"""Students that another worker's batch holds are waited for when everything else of the batch is committed."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from enrollment.names import ENROLL, UNENROLL
from models import student_locks
from tasks import batch, transaction
from tasks.caution import How
from tests.integration.conftest import message
from tests.integration.locked import release_all
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]
Events = Callable[[], list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a busy machine take its time."""
    monkeypatch.setattr(student_locks, "_LOCK_TIMEOUT", text("SET LOCAL lock_timeout = '20s'"))


@contextmanager
def busy(engine: Engine, *students: int) -> Iterator[None]:
    """Hold students as another worker's transaction does."""
    with engine.begin() as connection:
        connection.execute(text("SELECT FROM students WHERE id = ANY(:ids) FOR NO KEY UPDATE"), {"ids": list(students)})
        yield


def until(condition: Callable[[], object]) -> None:
    end = monotonic() + 10
    while not condition():
        assert monotonic() < end, "waited in vain"
        sleep(0.01)


def test_the_others_are_applied_and_told_while_a_student_is_busy(
    service: Service, worker_engine: Engine, rows: Rows, events: Events
) -> None:
    sent = [message(ENROLL, 1, [10]), message(ENROLL, 2, [11]), message(ENROLL, 77, [10]), message(ENROLL, "x", [10])]
    with ThreadPoolExecutor(1) as pool, busy(worker_engine, 1):
        outcomes = pool.submit(service.handle, sent)
        until(lambda: len(events()) == 3)
        assert rows("student_id, course_id", "student_courses") == [(2, 11)]
    assert outcomes.result()[1:] == [
        "applied",
        "rejected unknown_student [77]",
        "rejected invalid_command [student_id]",
    ]
    release_all(service)  # nothing, unless the machine took longer than a worker may
    assert rows("student_id, course_id", "student_courses") == [(1, 10), (2, 11)]
    assert [event["data"]["student_id"] for event in events()][-1] == 1
    assert rows("*", "outbox") == []


def test_a_student_is_waited_for_whom_a_worker_has_just_locked(
    service: Service, worker_engine: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[set[int]] = []
    run = transaction.run

    def spy(connection: Connection, units: Any, arrival: Any, how: How) -> transaction.Committed:
        waited.append(set(how.wait_for))
        return run(connection, units, arrival, how)

    monkeypatch.setattr(transaction, "run", spy)
    service.handle([message(ENROLL, 3, [10])])
    with ThreadPoolExecutor(1) as pool, busy(worker_engine, 1):
        outcomes = pool.submit(service.handle, [message(ENROLL, 1, [10])])
        until(lambda: waited[-1])
    assert outcomes.result() == ["applied"]
    assert waited == [set(), set(), set(), {1}]


def test_commands_without_a_stamp_keep_their_order_whoever_is_busy_in_between(
    service: Service, worker_engine: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MAX_PAIRS", 4)  # two commands in a transaction
    sent = [message((ENROLL, UNENROLL)[n % 2], 1 + n % 3, [10]) for n in range(12)]
    with ThreadPoolExecutor(1) as pool, busy(worker_engine, 2):
        outcomes = pool.submit(service.handle, sent)
        until(lambda: len(rows("*", "commands")) == 8)
    outcomes.result()
    release_all(service)
    stamps = {str(id_): issued_at for id_, issued_at in rows("command_id, issued_at", "commands")}
    for student in range(3):
        mine = [stamps[command.task_id] for command in sent[student::3]]
        assert mine == sorted(set(mine)), "in order of arrival, no two alike"
    assert rows("student_id, course_id", "student_courses") == [(2, 10)]


@pytest.mark.parametrize("second", [2, 3])
def test_of_two_commands_under_one_id_the_first_stands_though_its_student_is_busy(
    service: Service, worker_engine: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch, second: int
) -> None:
    monkeypatch.setattr(batch, "MAX_PAIRS", 4)  # two commands in a transaction
    first = message(ENROLL, 2, [11])
    other = message(ENROLL, second, [12], task_id=first.task_id)
    sent = [message(ENROLL, 3, [10]), message(ENROLL, 4, [10]), first, other]
    with ThreadPoolExecutor(1) as pool, busy(worker_engine, 2, 3):
        outcomes = pool.submit(service.handle, sent)
        until(lambda: rows("*", "commands"))
    assert outcomes.result()[1] == "applied"
    release_all(service)
    assert [code for (code,) in rows("code", "dead_letters")] == ["command_id_reused"]
    assert rows("student_id, course_id", "student_courses") == [(2, 11), (3, 10), (4, 10)]


def test_a_batch_that_is_split_keeps_the_order_of_a_student_who_is_busy(
    service: Service, engine: Engine, worker_engine: Engine, rows: Rows
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE student_courses ADD CONSTRAINT odd CHECK (course_id <> 13)"))
    first = message(ENROLL, 1, [10])
    same_id = message(ENROLL, 4, [14], task_id=first.task_id)
    sent = [first, message(ENROLL, 2, [11]), message(ENROLL, 3, [13]), message(UNENROLL, 1, [10]), same_id]
    with busy(engine, 1):
        outcomes = service.handle(sent)
    assert outcomes[1] == "applied"
    assert outcomes[2].startswith("dead letter processing_failed")
    release_all(service)
    assert rows("student_id, course_id", "student_courses") == [(2, 11)]
    assert sorted(code for (code,) in rows("code", "dead_letters")) == ["command_id_reused", "processing_failed"]


def test_a_worker_whose_commit_waits_for_a_standby_far_away_is_waited_for(
    service: Service, worker_engine: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(student_locks, "_LOCK_TIMEOUT", text(f"SET LOCAL lock_timeout = '{student_locks.PATIENCE}ms'"))
    with ThreadPoolExecutor(1) as pool:
        with busy(worker_engine, 1):
            outcomes = pool.submit(service.handle, [message(ENROLL, 1, [10])])
            sleep(0.7)  # as such a commit takes
        assert outcomes.result() == ["applied"]
    assert rows("student_id, course_id", "student_courses") == [(1, 10)]
