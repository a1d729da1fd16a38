"""Students that another batch holds are left for a transaction of their own, and everything else goes on."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from enrollment.names import APPLY, ENROLL, UNENROLL
from models import ledger
from tasks import apply, batch
from tasks.messages import Unit
from tests.integration.conftest import message
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]
Events = Callable[[], list[dict[str, Any]]]


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
    service: Service, engine: Engine, rows: Rows, events: Events
) -> None:
    sent = [message(ENROLL, 1, [10]), message(ENROLL, 2, [11]), message(ENROLL, 77, [10]), message(ENROLL, "x", [10])]
    with ThreadPoolExecutor(1) as pool, busy(engine, 1):
        outcomes = pool.submit(service.handle, sent)
        until(lambda: len(events()) == 3)
        assert rows("student_id, course_id", "student_courses") == [(2, 11)]
        assert not outcomes.done()
    assert outcomes.result() == [
        "applied",
        "applied",
        "rejected unknown_student [77]",
        "rejected invalid_command [student_id]",
    ]
    assert rows("student_id, course_id", "student_courses") == [(1, 10), (2, 11)]
    assert [event["data"]["student_id"] for event in events()][-1] == 1
    assert rows("*", "outbox") == []


def test_commands_without_a_stamp_keep_their_order_whoever_is_busy_in_between(
    service: Service, engine: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MAX_PAIRS", 4)  # two commands in a transaction
    sent = [message((ENROLL, UNENROLL)[n % 2], 1 + n % 3, [10]) for n in range(12)]
    with ThreadPoolExecutor(1) as pool, busy(engine, 2):
        outcomes = pool.submit(service.handle, sent)
        until(lambda: len(rows("*", "commands")) == 8)
        assert not outcomes.done()
    assert outcomes.result() == ["applied"] * 12
    stamps = {str(id_): issued_at for id_, issued_at in rows("command_id, issued_at", "commands")}
    for student in range(3):
        mine = [stamps[command.task_id] for command in sent[student::3]]
        assert mine == sorted(set(mine)), "in order of arrival, no two alike"
    assert rows("student_id, course_id", "student_courses") == [(2, 10)]


def test_of_two_commands_under_one_id_the_first_stands_though_its_student_is_busy(
    service: Service, engine: Engine, rows: Rows
) -> None:
    first = message(ENROLL, 1, [10])
    second = message(ENROLL, 2, [11], task_id=first.task_id)
    with ThreadPoolExecutor(1) as pool, busy(engine, 1):
        outcomes = pool.submit(service.handle, [first, second, message(ENROLL, 3, [12])])
        until(lambda: rows("*", "commands"))
    assert outcomes.result() == ["applied", "dead letter command_id_reused", "applied"]
    assert rows("student_id, course_id", "student_courses") == [(1, 10), (3, 12)]


def test_of_two_commands_under_one_id_the_first_stands_though_the_second_is_left_earlier(
    service: Service, engine: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "MAX_PAIRS", 4)  # two commands in a transaction
    first = message(ENROLL, 2, [11])
    second = message(ENROLL, 3, [12], task_id=first.task_id)  # left as soon as its student is known to be busy
    sent = [message(ENROLL, 3, [10]), message(ENROLL, 4, [10]), first, second]
    with ThreadPoolExecutor(1) as pool, busy(engine, 2, 3):
        outcomes = pool.submit(service.handle, sent)
        until(lambda: rows("*", "commands"))
    assert outcomes.result() == ["applied", "applied", "applied", "dead letter command_id_reused"]
    assert rows("student_id, course_id", "student_courses") == [(2, 11), (3, 10), (4, 10)]


def test_what_follows_a_command_that_is_left_for_its_id_is_left_as_well(
    service: Service, engine: Engine, rows: Rows
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE student_courses ADD CONSTRAINT odd CHECK (course_id <> 13)"))
    broken = message(ENROLL, 1, [13])
    same_id = message(ENROLL, 2, [10], task_id=broken.task_id)  # counts after all, once the first has come to nothing
    with ThreadPoolExecutor(1) as pool, busy(engine, 1):
        outcomes = pool.submit(service.handle, [broken, same_id, message(UNENROLL, 2, [10]), message(ENROLL, 3, [10])])
        until(lambda: rows("*", "commands"))
    assert [outcome.split(":")[0] for outcome in outcomes.result()] == [
        "dead letter processing_failed",
        "applied",
        "applied",
        "applied",
    ]
    assert rows("student_id, course_id", "student_courses") == [(3, 10)]


def test_an_apply_message_of_which_some_students_are_busy_is_told_as_one(service: Service, engine: Engine) -> None:
    commands = [
        {"command_id": message().task_id, "command": "enroll", "student_id": student, "course_ids": [10]}
        for student in (1, 2, 3, 1)
    ]
    with ThreadPoolExecutor(1) as pool, busy(engine, 1, 2):
        outcomes = pool.submit(service.handle, [message(APPLY, commands=commands)])
        sleep(0.2)
        assert not outcomes.done()
    assert outcomes.result() == ["4 applied"]


def test_a_batch_that_is_split_keeps_the_order_of_a_student_who_was_busy(
    service: Service, engine: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE student_courses ADD CONSTRAINT odd CHECK (course_id <> 13)"))
    lock, calls = ledger.lock_students, [0]

    def lock_late(connection: Connection, ids: Collection[int], *, wait: bool) -> tuple[set[int], set[int]]:
        locked, held = lock(connection, ids, wait=wait)
        calls[0] += 1
        busy_now = {1} & locked if calls[0] <= 2 and not wait else set()
        return locked - busy_now, held | busy_now

    monkeypatch.setattr(ledger, "lock_students", lock_late)
    first = message(ENROLL, 1, [10])
    same_id = message(ENROLL, 4, [14], task_id=first.task_id)
    sent = [first, message(ENROLL, 2, [11]), message(ENROLL, 3, [13]), message(UNENROLL, 1, [10]), same_id]
    outcomes = service.handle(sent)
    assert outcomes[:2] == ["applied", "applied"]
    assert outcomes[2].startswith("dead letter processing_failed")
    assert outcomes[3:] == ["applied", "dead letter command_id_reused"]
    assert rows("student_id, course_id", "student_courses") == [(2, 11)]


def test_what_is_left_is_applied_in_portions_too(
    service: Service, engine: Engine, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def spy(engine: Engine, units: Sequence[Unit], *args: Any, **kwargs: Any) -> Iterator[apply.Committed]:
        sizes.append(len(units))
        return apply.apply(engine, units, *args, **kwargs)

    monkeypatch.setattr(batch, "MAX_PAIRS", 4)  # two commands in a transaction
    monkeypatch.setattr("tasks.batch.apply", spy)
    with ThreadPoolExecutor(1) as pool, busy(engine, 1, 2):
        outcomes = pool.submit(service.handle, [message(ENROLL, 1 + n % 2, [10 + n % 5]) for n in range(10)])
        until(lambda: len(sizes) > 1)
    assert outcomes.result() == ["applied"] * 10
    assert max(sizes) == 2
    assert len(rows("*", "commands")) == 10
