"""How PostgreSQL finds what a batch needs: by key, whatever it knew of the tables when it made its plans."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine, text

from enrollment.names import ENROLL, REPLACE, UNENROLL
from models import ledger
from tests.integration.conftest import counted, message
from worker.service import Service
from worker.settings import Settings

TABLES = ["students", "courses", "student_courses", "tombstones", "replace_marks", "commands"]


def test_plans_made_while_tables_were_small_do_not_read_them_whole_when_they_have_grown(
    engine: Engine, database_url: str, redis_url: str, catalog: None, rows: Callable[..., list[tuple[Any, ...]]]
) -> None:
    settings = Settings(database_url=SecretStr(database_url), broker_url=SecretStr(redis_url))
    service = Service.connect(settings)

    def handle(courses: list[int]) -> None:
        for task in (ENROLL, UNENROLL, REPLACE):
            service.handle([message(task, student, courses) for student in range(1, 6)])

    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in TABLES:
            connection.execute(text(f"ALTER TABLE {table} SET (autovacuum_enabled = off)"))
        handle([10, 11])
        connection.execute(text("VACUUM ANALYZE"))
    for _ in range(14):  # psycopg prepares after five times, and PostgreSQL keeps its plan after five more
        handle([10, 11])
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))  # the checks of foreign keys shall not be counted
        connection.execute(text("INSERT INTO students (id) SELECT g FROM generate_series(6, 20000) g"))
        connection.execute(text("INSERT INTO student_courses SELECT g, 12 FROM generate_series(6, 20000) g"))
    handle([12, 13])
    service._batches._engine.dispose()  # a session tells what it has read in the end
    read = dict(rows("relname, seq_tup_read", f"pg_stat_user_tables WHERE relname IN {tuple(TABLES)}"))
    assert max(read.values()) < 20_000, read


def test_small_batches_go_by_plans_that_are_kept_for_a_while_and_larger_ones_by_their_own(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(commands: int) -> list[str]:
        with counted() as statements:
            service.handle([message(ENROLL, 1 + n % 5, [10]) for n in range(commands)])
        return [it for it in statements if "plan" in it.lower()]

    assert planned(1) == ["DISCARD PLANS", "SET LOCAL plan_cache_mode = force_generic_plan"]
    assert planned(ledger.SMALL) == ["SET LOCAL plan_cache_mode = force_generic_plan"]
    assert planned(ledger.SMALL + 1) == []
    monkeypatch.setattr(ledger, "KEPT", 0.0)
    assert planned(1) == ["DISCARD PLANS", "SET LOCAL plan_cache_mode = force_generic_plan"]
