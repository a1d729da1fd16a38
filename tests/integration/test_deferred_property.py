"""Whatever is locked, and whenever: the rows end as if nothing had been."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from enrollment.commands import Command, as_fields
from enrollment.names import APPLY
from tests.integration.conftest import message
from tests.integration.locked import held, release_all
from tests.unit.strategies import commands
from worker.publishing import Publisher
from worker.service import Service


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(of=commands(), locked=st.lists(st.sampled_from([(), (1,), (2, 3), (1, 2, 3)]), min_size=4, max_size=4))
def test_whatever_is_put_off_ends_in_the_same_rows(
    worker_engine: Engine, engine: Engine, publisher: Publisher, of: list[Command], locked: Sequence[tuple[int, ...]]
) -> None:
    parts = [of[n::4] for n in range(4)]
    assert ends(worker_engine, engine, publisher, parts, locked) == ends(worker_engine, engine, publisher, [of], [()])


def ends(
    worker_engine: Engine,
    engine: Engine,
    publisher: Publisher,
    parts: Sequence[list[Command]],
    locked: Sequence[tuple[int, ...]],
) -> list[list[tuple[Any, ...]]]:
    """Apply the parts one after the other, with some students locked during each; return the rows in the end."""
    tables = "student_courses, tombstones, replace_marks, commands, outbox, dead_letters, closed_courses"
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {tables}, students, courses, deferred_commands"))
        connection.execute(text("INSERT INTO students (id) VALUES (1), (2), (3)"))
        connection.execute(text("INSERT INTO courses (id) VALUES (10), (11), (12), (13)"))
    service = Service(worker_engine, publisher)
    for part, students in zip(parts, locked, strict=True):
        with held(engine, "SELECT FROM students WHERE id = ANY(:ids) FOR UPDATE", ids=list(students)):
            if part:
                service.handle([message(APPLY, commands=[as_fields(command) for command in part])])
            service.release()
    release_all(service)
    with engine.connect() as connection:
        names = ("student_courses", "tombstones", "replace_marks")
        found = [sorted(map(tuple, connection.execute(text(f"SELECT * FROM {name}")))) for name in names]
        ids = sorted(connection.execute(text("SELECT command_id FROM commands")).scalars(), key=UUID.__str__)
    return [*found, [(id_,) for id_ in ids]]
