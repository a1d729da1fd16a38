"""Imports whose rows waited and are sent by others: at the same time, after a load, an undo, about who was erased."""

from contextlib import suppress
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from sqlalchemy import Engine, text

from enrollment.client import BrokerAway
from models import imports, privacy
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
    run: Run, work: Work, imported: Import, rows: Rows, tmp_path: Path
) -> None:
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
    run("catalog", "load", "--students", students)
    assert work() == 1


def test_who_watches_a_folder_sends_rows_that_waited_for_what_others_have_loaded(
    variables: dict[str, str], work: Work, imported: Import, rows: Rows, *, load: Load, tmp_path: Path
) -> None:
    imported(canvas(tmp_path, "c10,s9,student,,active"), *DAY)
    (tmp_path / "watched").mkdir()
    watcher = start(variables, "import", "--watch", str(tmp_path / "watched"))
    try:
        load("INSERT INTO students (id, sis_id) VALUES (9, 's9')")
        eventually(lambda: work() or pairs(rows), 90)  # a watcher looks every five seconds, on a slow machine every 60
    finally:
        watcher.terminate()
        watcher.wait(30)
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


def test_an_undo_that_is_only_planned_changes_nothing(
    run: Run, work: Work, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    snapshot, _ = imported(canvas(tmp_path, "c10,s1,student,,active"), "--full")
    waits, _ = imported(canvas(tmp_path, "c11,s9,student,,active"), *DAY)
    for done in (snapshot, waits):
        assert run("import", "undo", done.json["id"], "--dry-run", "--json").code == 0
    assert [row[2] for row in run("imports").rows] == ["planned", "planned", "done", "done"]
    late = canvas(tmp_path, "c10,s2,student,,active")
    assert [row["outcome"] for row in imported(late, "--issued-at", OLDER)[1]] == ["superseded"]
    run("import", users(tmp_path, "s9"), "--no-wait")
    work()
    assert len(pairs(rows)) == 2


def test_of_two_plans_to_undo_an_import_one_is_applied(run: Run, work: Work, imported: Import, tmp_path: Path) -> None:
    done, _ = imported(canvas(tmp_path, "c10,s1,student,,active", "c10,s2,student,,active"))
    first, second = (run("import", "undo", done.json["id"], "--dry-run", "--json").json["id"] for _ in range(2))
    assert run("import", "--apply", second, "--no-wait").code == 0
    refused = run("import", "--apply", first)
    assert (refused.code, f"Plan {first} was not applied" in refused.error) == (1, True)
    assert f"Say `enrollment import undo {done.json['id']}` again, and apply that." in refused.error
    assert f"undone already, by import {second}" in run("import", "undo", done.json["id"]).error


@pytest.mark.parametrize(("first", "second"), [(OLDER, NEWER), (NEWER, OLDER)])
@pytest.mark.parametrize("newer", ["active", "deleted"])
def test_of_two_imports_that_wait_for_the_same_student_the_later_stamp_decides(
    run: Run, work: Work, imported: Import, rows: Rows, *, tmp_path: Path, first: str, second: str, newer: str
) -> None:
    older = {"active": "deleted", "deleted": "active"}[newer]
    for issued_at in (first, second):
        status = newer if issued_at == NEWER else older
        imported(canvas(tmp_path, f"c10,s9,student,,{status}"), *DAY, "--issued-at", issued_at)
    run("import", users(tmp_path, "s9"), "--no-wait")
    work()
    assert len(pairs(rows)) == (newer == "active")
    taken_up = [(f"imports/{import_id}", "1") for import_id in (1, 2)]
    assert rows("subject, detail->>'rows'", "audit WHERE action = 'import.taken_up'") == taken_up


def test_what_was_taken_up_and_decided_while_nobody_waited_does_not_stand_in_for_the_next_import(
    imported: Import, run: Run, work: Work, rows: Rows, engine: Engine, *, tmp_path: Path
) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    path = canvas(tmp_path / "one", "late,s1,student,,active")
    first = run("import", path, *DAY, "--no-wait", "--json").json["id"]
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO courses (id, title, sis_id) VALUES (77, 'Late', 'late')"))
    run("import", canvas(tmp_path / "other", "c10,s2,student,,active"), "--no-wait")
    work()
    assert (1, 77) in pairs(rows)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM student_courses"))
    again, _ = imported(path, *DAY)
    assert again.json["id"] != first
    assert (1, 77) in pairs(rows)


def test_who_looks_at_an_import_for_a_moment_is_waited_for(
    run: Run, imported: Import, engine: Engine, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, _ = imported(canvas(tmp_path, "c10,s9,student,,active"), *DAY)
    with engine.connect() as watcher:
        assert imports.lock(watcher, done.json["id"])
        timer = Timer(1, watcher.invalidate)
        timer.start()
        assert run("import", "--apply", done.json["id"]).code == 0
        timer.join()
    monkeypatch.setattr(running, "PATIENCE", 0.5)
    with engine.connect() as other:
        assert imports.lock(other, done.json["id"])
        undone = run("import", "undo", done.json["id"], "--no-wait")
        other.invalidate()
    assert (undone.code, "is being applied by another process" in undone.error) == (1, True)


def test_an_import_that_is_sent_is_waited_for_though_the_rows_of_others_cannot_be_sent(
    run: Run, work: Work, imported: Import, rows: Rows, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported(canvas(tmp_path, "c10,s9,student,,active"), *DAY)

    def away(*_: Any, **__: Any) -> list[int]:
        work()
        raise BrokerAway("redis", 1, "gone", ())

    monkeypatch.setattr(running, "take_up", away)
    done = run("import", canvas(tmp_path, "c11,s1,student,,active"))
    assert (done.code, pairs(rows)) == (0, [(1, 11)])
    assert "Rows of imports that wait for the catalog wait on: The broker at redis did not take" in done.error
