"""A watched folder: files imported once, whoever watches, whoever is killed."""

import csv
import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tasks.imports.watch import POLL
from tests.eventually import eventually
from tests.integration.cli.conftest import Run, start, write
from tests.integration.cli.imports.conftest import HEADER, Import, Rows, canvas, pairs
from tests.integration.cli.imports.test_waits import DAY, Load, Work
from worker.service import Service

MANY = 20_000


@pytest.fixture
def worker(variables: dict[str, str], service: Service) -> Iterator[None]:
    """Run the real worker beside the test."""
    command = [sys.executable, "-m", "celery", "-A", "worker", "worker"]
    with subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        yield
        process.terminate()


def test_two_watchers_import_each_file_once_and_put_the_report_beside_it(
    worker: None, variables: dict[str, str], rows: Rows, tmp_path: Path
) -> None:
    logs = [tmp_path / ".1.log", tmp_path / ".2.log"]
    with ExitStack() as files:
        streams = [files.enter_context(log.open("w")) for log in logs]
        watchers = [start(variables, "import", "--watch", str(tmp_path), stderr=stream) for stream in streams]
    try:
        for number in range(1, 5):
            part = write(tmp_path / f"{number}.csv.part", HEADER, f"c10,s{number},student,,active")
            part.rename(tmp_path / f"{number}.csv")
        write(tmp_path / "bad.csv", HEADER, "c10,s9,student,,active")
        write(tmp_path / "worse.csv", "a,b")
        os.mkfifo(tmp_path / "pipe.csv")
        (tmp_path / "folder").mkdir()
        (tmp_path / "loop").symlink_to("loop")
        for name in ("users.xlsx", "folder/read me.txt", "later.csv.part"):
            write(tmp_path / name, "x")
        with zipfile.ZipFile(tmp_path / "term.zip.part", "w") as archive:
            archive.writestr("enrollments.csv", f"{HEADER}\nc10,s1,student,,active\n")
            archive.writestr("terms.csv", "term_id,name\n")
        (tmp_path / "term.zip.part").rename(tmp_path / "term.zip")
        eventually(lambda: [*tmp_path.glob("*.[cz]??")] == [tmp_path / "pipe.csv"], 90)
        eventually(lambda: all(log.read_text().count("is left where it is") >= 3 for log in logs))
        time.sleep(2 * POLL)  # in which it is not said again
    finally:
        for watcher in watchers:
            watcher.terminate()
        for watcher in watchers:
            watcher.wait(30)
    said = [log.read_text() for log in logs]
    told = "".join(said)
    assert [watcher.returncode for watcher in watchers] == [0, 0]
    for name in ("users.xlsx", "folder", "pipe.csv"):
        assert [text.count(f"{name} is left where it is: ") for text in said] == [1, 1]
    assert told.count("is left where it is") == 6
    assert {path.name for path in (tmp_path / "done").iterdir()} == {
        name for what in ("1.csv", "2.csv", "3.csv", "4.csv", "term.zip") for name in (what, f"{what}.report.csv")
    }
    assert "terms.csv was left out." in told
    with (tmp_path / "done" / "term.zip.report.csv").open(newline="") as lines:
        assert [(row["file"], row["plan"]) for row in csv.DictReader(lines)][1:] == [("terms.csv", "left_out")]
    failed = {path.name for path in (tmp_path / "failed").iterdir()}
    assert failed == {"bad.csv", "bad.csv.report.csv", "worse.csv", "worse.csv.error.txt"}
    assert len(rows("id", "imports")) == 6
    assert pairs(rows) == [(number, 10) for number in range(1, 5)]


def test_what_a_killed_watcher_had_begun_is_ended_by_the_next_and_nothing_is_done_twice(
    worker: None, variables: dict[str, str], run: Run, rows: Rows, tmp_path: Path
) -> None:
    users = ("user_id,login_id,full_name", *(f"w{n},l,W" for n in range(MANY)))
    enrollments = (HEADER, *(f"c10,w{n},student,,active" for n in range(MANY)))
    with zipfile.ZipFile(tmp_path / "export.zip.part", "w") as archive:
        for name, content in (("users.csv", users), ("enrollments.csv", enrollments)):
            archive.writestr(name, "\n".join(content))
    (tmp_path / "export.zip.part").rename(tmp_path / "export.zip")
    watcher = start(variables, "import", "--watch", str(tmp_path), stderr=subprocess.PIPE)
    eventually(lambda: rows("id", "imports WHERE sent > 0") or watcher.poll() is not None, 90)
    watcher.kill()
    watcher.communicate()
    assert (tmp_path / "export.zip").exists()
    assert run("import", "--watch", tmp_path, "--once").code == 0
    with (tmp_path / "done" / "export.zip.report.csv").open(newline="") as lines:
        assert [row["outcome"] for row in csv.DictReader(lines)] == ["enrolled"] * MANY
    assert rows("count(*), count(DISTINCT student_id)", "commands") == [(MANY, MANY)]
    assert len(rows("id", "imports")) == 1


def test_a_file_that_the_database_refuses_keeps_no_other_from_being_imported(
    run: Run, load: Load, rows: Rows, tmp_path: Path, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.imports.watch.QUIET", 0)
    load("ALTER TABLE import_rows ADD CONSTRAINT odd CHECK (student <> 'odd')")
    write(tmp_path / "1.csv", HEADER, "c10,odd,teacher,,active")
    write(tmp_path / "2.csv", HEADER, "c10,s1,teacher,,active")
    assert run("import", "--watch", tmp_path, "--once").code == 0
    assert 'violates check constraint "odd"' in (tmp_path / "failed" / "1.csv.error.txt").read_text()
    assert (tmp_path / "done" / "2.csv").exists()


def test_a_look_at_an_empty_folder_sends_rows_that_waited(
    run: Run, imported: Import, work: Work, load: Load, tmp_path: Path
) -> None:
    imported(canvas(tmp_path, "c10,s9,student,,active"), *DAY)
    load("INSERT INTO students (id, sis_id) VALUES (9, 's9')")
    (tmp_path / "watched").mkdir()
    assert run("import", "--watch", tmp_path / "watched", "--once").code == 0
    assert work() == 1


def test_a_signal_ends_a_watcher_that_waits_for_the_broker(
    variables: dict[str, str], imported: Import, load: Load, tmp_path: Path
) -> None:
    imported(canvas(tmp_path, "c10,s9,student,,active"), *DAY)
    load("INSERT INTO students (id, sis_id) VALUES (9, 's9')")
    (tmp_path / "watched").mkdir()
    with socket.create_server(("127.0.0.1", 0)) as broker:
        away = {**variables, "ENROLLMENT_BROKER_URL": f"redis://127.0.0.1:{broker.getsockname()[1]}"}
        watcher = start(away, "import", "--watch", str(tmp_path / "watched"), stderr=subprocess.PIPE)
        broker.accept()[0].close()
    time.sleep(0.5)  # it begins to wait, for thirty seconds
    watcher.terminate()
    assert watcher.communicate(timeout=10)[1] == ""
    assert watcher.returncode == 0
