"""`enrollment migrate`: the tables of an empty database, how far they are, and the SQL for it."""

from collections.abc import Iterator

import psycopg
import pytest

import migrations
from tests.integration.cli.conftest import Run
from tests.migration.steps import FILL
from worker.local.postgres import Postgres

NEWEST = max(FILL)


@pytest.fixture
def empty(postgres: Postgres) -> Iterator[str]:
    yield postgres.create_database("bare")
    postgres.drop_database("bare")


def test_migrate_creates_the_tables_and_names_each_revision(run: Run, empty: str) -> None:
    before = run("migrate", "status", "--json", ENROLLMENT_DATABASE_URL=empty)
    assert (before.code, before.json["current"], len(before.json["pending"])) == (1, None, int(NEWEST))
    done = run("migrate", ENROLLMENT_DATABASE_URL=empty)
    assert done.code == 0
    assert [line.partition("  ")[0] for line in done.output.splitlines()] == [
        revision["id"] for revision in before.json["pending"]
    ]
    after = run("migrate", "status", ENROLLMENT_DATABASE_URL=empty)
    assert (after.code, after.output) == (0, f"At {NEWEST}, the newest revision.\n")
    assert run("migrate", ENROLLMENT_DATABASE_URL=empty).output.startswith("Nothing to do")


def test_migrate_status_says_what_may_run_beside_old_workers_and_what_not(
    run: Run, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("migrate", "status", ENROLLMENT_DATABASE_URL=empty)
    assert {row[1] for row in done.rows[1:]} == {"yes"}
    assert "may go on" in done.error
    monkeypatch.setattr(migrations, "STOPS_OLD_WORKERS", {NEWEST: "they need what goes"})
    done = run("migrate", "status", ENROLLMENT_DATABASE_URL=empty)
    assert done.rows[-1][1] == "no: they need what goes"
    assert "Stop the workers" in done.error


def test_migrate_sql_prints_statements_and_changes_nothing(run: Run, empty: str) -> None:
    done = run("migrate", "--sql", ENROLLMENT_DATABASE_URL=empty)
    assert done.output.startswith("BEGIN;\nCREATE TABLE alembic_version")
    assert run("migrate", "status", ENROLLMENT_DATABASE_URL=empty).code == 1


def test_a_database_of_a_newer_version_is_told_from_one_that_is_behind(
    run: Run, empty: str, postgres: Postgres
) -> None:
    run("migrate", ENROLLMENT_DATABASE_URL=empty)
    with psycopg.connect(empty) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    done = run("migrate", "status", ENROLLMENT_DATABASE_URL=empty)
    assert done.code == 1
    assert "newer than this version" in done.error


@pytest.mark.parametrize("arguments", [["migrate"], ["migrate", "--sql"], ["migrate", "status"]])
def test_a_database_that_is_away_is_one_sentence(run: Run, arguments: list[str]) -> None:
    done = run(*arguments, ENROLLMENT_DATABASE_URL="postgresql://root:secret@127.0.0.1:1/x")
    assert done.code == 1
    assert len(done.error.splitlines()) == 1
    assert "secret" not in done.error
