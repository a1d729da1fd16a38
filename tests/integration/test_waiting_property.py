"""Whenever the catalog comes, the rows end as if it had been there."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, text

from enrollment.commands import Command, as_fields
from enrollment.names import APPLY
from tests.integration.conftest import message
from tests.unit.strategies import commands
from worker.publishing import Publisher
from worker.service import Service


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(of=commands(), loads=st.lists(st.sampled_from([(), (1, 10), (2, 11), (3, 12), (1, 13)]), min_size=4, max_size=4))
def test_whenever_the_catalog_comes_the_rows_end_as_if_it_had_been_there(
    worker_engine: Engine, engine: Engine, publisher: Publisher, of: list[Command], loads: Sequence[tuple[int, ...]]
) -> None:
    patient = [command.model_copy(update={"wait_until": datetime(2999, 1, 1, tzinfo=UTC)}) for command in of]
    parts = [patient[n::4] for n in range(4)]
    assert ends(worker_engine, engine, publisher, parts, loads) == ends(
        worker_engine, engine, publisher, [patient], None
    )


def ends(
    worker_engine: Engine,
    engine: Engine,
    publisher: Publisher,
    parts: Sequence[list[Command]],
    loads: Sequence[tuple[int, ...]] | None,
) -> list[list[tuple[Any, ...]]]:
    """Apply the parts one after the other, with some of the catalog after each; return the rows in the end."""
    tables = "student_courses, tombstones, replace_marks, commands, outbox, dead_letters, closed_courses"
    everything = (
        "INSERT INTO students (id) VALUES (1), (2), (3) ON CONFLICT DO NOTHING",
        "INSERT INTO courses (id) VALUES (10), (11), (12), (13) ON CONFLICT DO NOTHING",
    )
    with engine.begin() as connection:
        connection.execute(text(f"TRUNCATE {tables}, students, courses, deferred_commands"))
        for statement in everything if loads is None else ():
            connection.execute(text(statement))
    service = Service(worker_engine, publisher)
    for place, part in enumerate(parts):
        if part:
            service.handle([message(APPLY, commands=[as_fields(command) for command in part])])
        if loads is not None and loads[place]:
            student, course = loads[place]
            with engine.begin() as connection:
                connection.execute(text(f"INSERT INTO students (id) VALUES ({student}) ON CONFLICT DO NOTHING"))
                connection.execute(text(f"INSERT INTO courses (id) VALUES ({course}) ON CONFLICT DO NOTHING"))
        service.release()
    with engine.begin() as connection:
        for statement in everything:
            connection.execute(text(statement))
    unknown = "waits_for IN (9, 99)"
    while deferred_but(engine, unknown):
        service._batches._awaiting._look_from = 0
        service.release()
    with engine.connect() as connection:
        names = ("student_courses", "tombstones", "replace_marks")
        found = [sorted(map(tuple, connection.execute(text(f"SELECT * FROM {name}")))) for name in names]
        ids = sorted(connection.execute(text("SELECT command_id FROM commands")).scalars(), key=UUID.__str__)
    return [*found, [(id_,) for id_ in ids]]


def deferred_but(engine: Engine, unknown: str) -> bool:
    with engine.connect() as connection:
        return bool(
            connection.execute(text(f"SELECT EXISTS (SELECT FROM deferred_commands WHERE NOT {unknown})")).scalar_one()
        )
