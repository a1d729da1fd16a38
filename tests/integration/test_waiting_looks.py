"""How it is found that students and courses have come, and what many commands wait for, on real servers."""

from collections.abc import Callable
from time import monotonic
from typing import Any

import pytest
from sqlalchemy import Engine, text

from enrollment.names import ENROLL
from models import awaited
from models.deferred import Reason, Wait
from tasks.caution import Blocked
from tests.eventually import eventually
from tests.integration.conftest import message
from tests.integration.locked import release_all
from worker.service import Service

Rows = Callable[..., list[tuple[Any, ...]]]
Load = Callable[[str], None]
LATER = "2999-01-01T00:00:00Z"


def test_students_and_courses_are_found_in_steps_however_many_are_waited_for(
    service: Service, rows: Rows, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.awaiting._BLOCKS", 1)
    monkeypatch.setattr("tasks.awaiting._PAGE", 50)
    service.handle([message(ENROLL, 1 + n % 5, [1000 + n % 200], wait_until=LATER) for n in range(600)])
    service.handle([message(ENROLL, 1000 + n, [10], wait_until=LATER) for n in range(100)])
    load("INSERT INTO courses (id) SELECT generate_series(1000, 1199, 2)")
    load("INSERT INTO students (id) SELECT generate_series(1000, 1099, 2)")
    while len(rows("*", "deferred_commands")) > 350:
        service.release()
    assert {course % 2 for (course,) in rows("waits_for", "deferred_commands")} == {1}


def test_what_was_added_to_the_catalog_is_looked_for_at_once_whatever_pause_is_left(
    service: Service, engine: Engine, rows: Rows, load: Load
) -> None:
    service.handle([message(ENROLL, 1, [99], wait_until=LATER)])
    awaiting = service._batches._awaiting
    eventually(lambda: service.release() and not awaiting._hurried)
    awaiting._look_from = monotonic() + 3600
    load("INSERT INTO courses (id) VALUES (99)")
    engine.dispose()  # a session that ends tells at once what it has added, one that idles after ten seconds
    eventually(lambda: service.release() is None, 60)
    assert rows("outcome", "commands") == [("applied",)]


@pytest.mark.parametrize(("courses", "blocks"), [(3, 4), (20_000, 314)])
def test_looking_at_what_is_waited_for_costs_steps_through_indexes(
    service: Service, engine: Engine, worker_engine: Engine, courses: int, blocks: int
) -> None:
    with engine.begin() as connection:
        connection.execute(
            text(f"""
            INSERT INTO deferred_commands (reason, waits_for, first_seen, command_id, request, task, task_id,
                                           message_key, position, headers, until, told)
            SELECT 'unknown_course', 1000001 + 2 * (n % {courses}), now(), gen_random_uuid(), '{{}}', '', '', '', 0,
                   '{{}}', now() + interval '1 day', true FROM generate_series(1, 20000) AS n""")
        )

    def look(blocks: int) -> tuple[str, awaited.Looked]:
        with worker_engine.connect() as connection:
            said = {"reason": Reason.UNKNOWN_COURSE, "after": 0, "blocks": blocks}
            statement = text(f"EXPLAIN (ANALYZE, COSTS OFF) {awaited._LOOKS[Reason.UNKNOWN_COURSE].text}")
            return "\n".join(connection.execute(statement, said).scalars()), awaited.look(connection, None, blocks)

    students = Wait(Reason.UNKNOWN_STUDENT, 0)
    assert look(2)[1] == ([], students)  # the catalog has no such ids at all: one block tells
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO courses (id) SELECT 1000000 + 2 * n FROM generate_series(0, 20000) AS n"))
    plan, looked = look(blocks)
    assert "Seq Scan" not in plan
    assert looked == ([], students)
    assert look(blocks - 2)[1].last not in (students, None)


def test_what_has_come_is_decided_beside_what_is_over_and_beside_what_many_wait_for(
    service: Service, rows: Rows, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.awaiting._PAGE", 4)
    monkeypatch.setattr("tasks.awaiting.BUDGET", 0)  # one step each time
    service.handle([message(ENROLL, 1 + i % 5, [10], effective_at=LATER) for i in range(40)])
    service.handle([message(ENROLL, 1 + i % 5, [98], wait_until=LATER) for i in range(40)])
    service.handle([message(ENROLL, 1, [99], wait_until=LATER)])
    load("INSERT INTO courses (id) VALUES (98), (99)")
    load("UPDATE deferred_commands SET until = now() WHERE reason = 'time'")
    while rows("1", "deferred_commands WHERE waits_for = 99 AND reason = 'unknown_course'"):
        service.release()
    assert {reason for (reason,) in rows("reason", "deferred_commands")} == {"time", "unknown_course"}


def test_what_many_wait_for_is_seen_however_many_wait_for_other_things_first(
    service: Service, engine: Engine, rows: Rows, load: Load, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = awaited._SHARES.text.replace(f"LIMIT {2 * awaited.COUNTED}", "LIMIT 20")
    monkeypatch.setattr(awaited, "_SHARES", text(few))
    service.handle([message(ENROLL, 1 + n % 5, [1000 + n], wait_until=LATER) for n in range(100)])
    service.handle([message(ENROLL, 1 + n % 5, [5000], wait_until=LATER) for n in range(30)])
    service.handle([message(ENROLL, 6000, [10], wait_until=LATER) for _ in range(40)])
    load("ANALYZE deferred_commands")
    with engine.connect() as connection:
        shares = awaited.counts(connection).shares
    assert shares[:2] == [(Reason.UNKNOWN_STUDENT, 6000, 40), (Reason.UNKNOWN_COURSE, 5000, 30)]
    assert len(shares) == 10


def test_rows_that_are_added_to_partitions_count_as_well(worker_engine: Engine, engine: Engine, load: Load) -> None:
    load("CREATE SCHEMA theirs")
    load("CREATE TABLE theirs.students (id bigint PRIMARY KEY) PARTITION BY RANGE (id)")
    load("CREATE TABLE theirs.some PARTITION OF theirs.students DEFAULT")

    def added() -> int:
        with worker_engine.begin() as connection:
            connection.execute(text("SET LOCAL search_path = theirs, public"))
            return awaited.added(connection)

    before = added()
    load("INSERT INTO theirs.students (id) SELECT generate_series(1, 7)")
    engine.dispose()  # as above
    eventually(lambda: added() == before + 7, 60)


def test_what_was_found_while_a_table_was_locked_is_looked_for_again(
    service: Service, rows: Rows, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.awaiting._BLOCKS", 1)
    service.handle([message(ENROLL, 1 + n % 5, [1000 + n], wait_until=LATER) for n in range(200)])
    load("INSERT INTO courses (id) SELECT generate_series(1000, 1199)")
    awaiting = service._batches._awaiting

    def locked(*_: Any, **__: Any) -> None:
        raise Blocked

    with monkeypatch.context() as patch:
        patch.setattr(awaiting, "_settle", locked)
        service.release()
    assert awaiting._after is None
    release_all(service)
    assert rows("DISTINCT outcome", "commands") == [("applied",)]
