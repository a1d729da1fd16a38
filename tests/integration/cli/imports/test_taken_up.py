"""Imports whose rows waited and are sent by others: at the same time, after a load, an undo, about who was erased."""

import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from models import privacy
from tasks.imports import run as running
from tests.eventually import eventually
from tests.integration.cli.conftest import Run, start, write
from tests.integration.cli.imports.conftest import NEWER, OLDER, Import, Rows, canvas, pairs
from tests.integration.cli.imports.test_waits import DAY, Load, Work, report_of, users


class Broken:
    """A broker that goes away before it has taken what it was given."""

    def send(self, command: Any) -> Any:
        return command.command_id

    def flush(self) -> None:
        raise ConnectionResetError


def test_an_import_is_not_done_while_another_process_sends_more_of_it(
    run: Run, work: Work, engine: Engine, rows: Rows, tmp_path: Path
) -> None:
    path = canvas(tmp_path, "c10,s1,student,,active", "c10,s9,student,,active")
    import_id = run("import", path, *DAY, "--no-wait", "--json").json["id"]

    def meanwhile(_: float) -> None:
        with engine.begin() as connection:
            connection.execute(text("INSERT INTO students (id, sis_id) VALUES (9, 's9') ON CONFLICT DO NOTHING"))
        with suppress(ConnectionResetError):
            running.take_up(engine, Broken(), by="cli/test")
        work()

    with pytest.raises(running.NoOutcomes):
        running.settle(engine, import_id, patience=0.5, sleep=meanwhile)
    assert rows("state", "imports") == [("sending",)]
    run("import", "--apply", import_id, "--no-wait")
    work()
    assert run("import", "--apply", import_id, "--json").json["outcomes"]["enrolled"] == 2
    assert pairs(rows) == [(1, 10), (9, 10)]


def test_a_load_of_the_catalog_sends_the_rows_that_waited_for_it(
    run: Run, work: Work, imported: Import, rows: Rows, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.cli.taking_up._SETTLE", 0)
    done, _ = imported(canvas(tmp_path, "c10,s9,student,,active", "MAT,s1,student,,active"), *DAY)
    students = write(tmp_path / "students.csv", "sis_id,name", "s9,Somebody")
    assert run("catalog", "load", "--students", students, "--json").json["students"]["inserted"] == 1
    assert work() == 1
    assert report_of(run, done.json["id"], tmp_path / "then.csv") == [("3", "waiting", ""), ("2", "enrolled", "")]
    assert run("catalog", "load", "--students", students).code == 0
    assert work() == 0
    assert [course for _, course in pairs(rows)] == [10]


@pytest.mark.usefixtures("service")
def test_a_load_is_done_and_says_what_keeps_rows_that_waited_from_being_sent(
    run: Run, work: Work, imported: Import, rows: Rows, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.cli.taking_up.PATIENCE", 0.1)
    imported(canvas(tmp_path, "c10,s9,student,,active"), *DAY)
    students = write(tmp_path / "students.csv", "sis_id,name", "s9,Somebody")
    loaded = run("catalog", "load", "--students", students, ENROLLMENT_BROKER_URL="redis://127.0.0.1:1")
    assert (loaded.code, loaded.output) == (0, "1 new student, 0 changed, 0 as before.\n")
    assert loaded.error.startswith("Rows of imports that wait for the catalog wait on: ")
    assert rows("count(*)", "students WHERE sis_id = 's9'") == [(1,)]
    monkeypatch.setattr("worker.cli.taking_up._SETTLE", 0)
    run("catalog", "load", "--students", students)
    assert work() == 1


def test_who_watches_a_folder_sends_rows_that_waited_for_what_others_have_loaded(
    variables: dict[str, str], work: Work, imported: Import, rows: Rows, *, load: Load, tmp_path: Path
) -> None:
    imported(canvas(tmp_path, "c10,s9,student,,active"), *DAY)
    (tmp_path / "watched").mkdir()
    watcher = start(variables, "import", "--watch", str(tmp_path / "watched"), stderr=subprocess.PIPE)
    try:
        load("INSERT INTO students (id, sis_id) VALUES (9, 's9')")
        eventually(lambda: work() or pairs(rows), 60)
    finally:
        watcher.terminate()
        watcher.communicate(timeout=30)
    assert pairs(rows) == [(9, 10)]


def test_what_is_sent_after_its_undo_was_planned_keeps_the_undo_from_being_applied(
    run: Run, work: Work, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    done, _ = imported(canvas(tmp_path, "c10,s9,student,,active"), *DAY)
    planned = run("import", "undo", done.json["id"], "--dry-run", "--json").json
    run("import", users(tmp_path, "s9"), "--no-wait")
    work()
    run("import", "--apply", done.json["id"], "--json")
    refused = run("import", "--apply", planned["id"])
    assert (refused.code, len(pairs(rows))) == (1, 1)
    assert "enrollments have changed since it was made" in refused.error


def test_a_file_may_be_imported_and_undone_again(
    run: Run, work: Work, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    path = canvas(tmp_path, "c10,s1,student,,active")
    for issued_at in (OLDER, NEWER):
        done, _ = imported(path, "--issued-at", issued_at)
        run("import", "undo", done.json["id"], "--no-wait")
        work()
        assert pairs(rows) == []


def test_a_row_of_an_erased_student_waits_for_nobody_else(
    run: Run, work: Work, imported: Import, engine: Engine, tmp_path: Path
) -> None:
    done, _ = imported(canvas(tmp_path, "MAT,s1,student,,active"), *DAY)
    with engine.begin() as connection:
        privacy.erase(connection, 1, by="cli/test")
        connection.execute(text("UPDATE students SET sis_id = '1' WHERE id = 2"))
    run("import", write(tmp_path / "courses.csv", "course_id,short_name,long_name", "MAT,M1,Mathematics"), "--no-wait")
    assert work() == 0
    assert report_of(run, done.json["id"], tmp_path / "then.csv") == [("2", "rejected", "unknown_student")]


@pytest.mark.parametrize("seconds", ["nan", "inf", "1e12"])
def test_a_wait_without_end_is_refused(run: Run, tmp_path: Path, seconds: str) -> None:
    refused = run("import", canvas(tmp_path, "c10,s1,student,,active"), "--wait-for-catalog", seconds)
    assert refused.code == 2
    assert "Invalid value for '--wait-for-catalog'" in refused.error
