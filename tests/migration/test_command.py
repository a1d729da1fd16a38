"""`alembic` as an operator runs it: as a command, from anywhere, and two at once."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from alembic import command

from models.metadata import METADATA
from tests.migration.steps import FILL, Database, alembic_config
from tests.migration.test_adoption import BARE, PAIRS
from tests.root import ROOT

TIMEOUT = 60  # seconds


def start(url: str | None, *arguments: str, folder: Path = ROOT) -> subprocess.Popen[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("ENROLLMENT_")}
    if url is not None:
        variables["ENROLLMENT_DATABASE_URL"] = url
    call = [str(Path(sys.executable).with_name("alembic")), *arguments]
    return subprocess.Popen(
        call, cwd=folder, env=variables, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    output, _ = process.communicate(timeout=TIMEOUT)
    return process.returncode, output


@pytest.mark.parametrize("elsewhere", [False, True])
def test_upgrade_head_works_from_the_root_and_from_elsewhere(
    database: Database, tmp_path: Path, *, elsewhere: bool
) -> None:
    arguments = ["-c", str(ROOT / "alembic.ini"), "upgrade", "head"] if elsewhere else ["upgrade", "head"]
    code, output = finish(start(database.url, *arguments, folder=tmp_path if elsewhere else ROOT))
    assert code == 0, output
    assert "0004 -> 0005" in output
    assert database.tables() == set(METADATA.tables)
    database.check()


@pytest.mark.parametrize("setup", ["", BARE + PAIRS], ids=["empty", "adopted"])
def test_two_migrators_at_once_do_not_collide(database: Database, setup: str) -> None:
    database.connection.execute(setup.encode())
    before = database.tables()
    database.run("SELECT pg_advisory_lock(4815162342001)")  # the one of migrations/env.py, so that both begin together
    migrators = [start(database.url, "upgrade", "head") for _ in range(2)]
    deadline = time.monotonic() + TIMEOUT
    while database.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") < 3:
        assert time.monotonic() < deadline, "a migrator did not wait for the other"
        time.sleep(0.05)
    assert database.tables() == before
    database.run("SELECT pg_advisory_unlock(4815162342001)")
    outcomes = [finish(process) for process in migrators]
    assert [code for code, _ in outcomes] == [0, 0], outcomes
    assert sorted("Running upgrade" in output for _, output in outcomes) == [False, True]
    database.check()


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (None, "ENROLLMENT_DATABASE_URL is not set; set it to an address such as"),
        ("mysql://root:secret@localhost/x", "ENROLLMENT_DATABASE_URL must start with postgresql://"),
        ("postgresql://root:secret@127.0.0.1:1/x", "PostgreSQL stopped the migration (connection failed"),
    ],
)
def test_a_missing_foreign_or_dead_address_is_one_sentence(url: str | None, sentence: str) -> None:
    code, output = finish(start(url, "upgrade", "head"))
    assert code != 0
    assert sentence in output
    assert len(output.splitlines()) == 1
    assert "secret" not in output


def test_a_new_revision_gets_the_next_number_and_the_warning(database: Database, tmp_path: Path) -> None:
    database.upgrade()
    config = alembic_config(database.url)
    config.set_main_option("version_locations", f"{ROOT / 'migrations' / 'versions'}:{tmp_path}")
    command.revision(config, "Add nothing", version_path=str(tmp_path))
    newest = max(FILL)
    [path] = tmp_path.glob("*_add_nothing.py")
    written = path.read_text()
    assert f"Revision: {int(newest) + 1:04}, after {newest}" in written
    assert "New code must run on the old schema" in written
    compile(written, path.name, "exec")


def test_a_schema_of_its_own_gets_all_tables_and_the_schema_public_none(database: Database) -> None:
    """Two of the kind live beside each other, each adopting its own tables only."""
    database.run("CREATE TABLE students (id text PRIMARY KEY)")  # nothing that could be adopted
    database.run("CREATE SCHEMA school")
    database.run("CREATE TABLE school.courses (id int PRIMARY KEY, code text NOT NULL)")
    url = f"{database.url}?options=-csearch_path=school"
    for arguments in (["upgrade", "head"], ["check"]):
        code, output = finish(start(url, *arguments))
        assert code == 0, output
    assert database.tables() == {"students"}
    found = database.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'school'")
    assert found == len(METADATA.tables) + 1
    assert database.value("SELECT count(*) FROM school.alembic_version") == 1


def test_a_schema_that_is_not_there_is_one_sentence(database: Database) -> None:
    code, output = finish(start(f"{database.url}?options=-csearch_path=school", "upgrade", "head"))
    assert code != 0
    assert "no schema has been selected to create in" in output
    assert database.tables() == set()
