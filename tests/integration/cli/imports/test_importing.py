"""`enrollment import`: planned, applied, guarded, taken up again, undone and explained, on real servers."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from redis import Redis as Connection
from sqlalchemy import Engine, text

from enrollment.names import BULK_QUEUE
from tests.eventually import eventually
from tests.integration.cli.conftest import Run, start, write
from tests.integration.cli.imports.conftest import HEADER, NEWER, OLDER, Import, Rows, canvas, oneroster, pairs, told


def test_every_row_is_reported_with_what_came_of_it(imported: Import, rows: Rows, tmp_path: Path) -> None:
    path = canvas(
        tmp_path,
        "c10,s1,student,,active",
        "c10,s2,teacher,,active",
        "c10,s9,student,,active",
        "c99,s1,student,,active",
        "c10,s3,student,,gone",
        "c11,s1,student,,deleted",
    )
    done, report = imported(path)
    assert done.code == 3
    assert told(report) == [
        ("2", "enrolled", ""),
        ("3", "ignored", "not_student"),
        ("4", "rejected", "unknown_student"),
        ("5", "rejected", "unknown_courses"),
        ("6", "rejected", "unknown_status"),
        ("7", "unchanged", ""),
    ]
    assert report[2]["message"] == "There is no student with the SIS id s9."
    assert pairs(rows) == [(1, 10)]
    [command] = {row["command_id"] for row in report if row["outcome"] == "enrolled"}
    assert rows("source", f"commands WHERE command_id = '{command}'") == [("import/canvas",)]


def test_the_first_row_of_each_reason_is_told_with_its_file(run: Run, tmp_path: Path) -> None:
    write(tmp_path / "courses.csv", "course_id,short_name,long_name", "c10,M,M", "c11,N,N", ",O,O")
    write(tmp_path / "users.csv", "user_id,login_id,full_name", ",l,L")
    path = canvas(tmp_path, "c10,s1,student,,active", "c10,s2,studnet,,active", "c10,s3,teacher,,active")
    done = run("import", path.parent, "--dry-run", "--full")
    assert "2 rows rejected, missing_value; the first is courses.csv, line 4: The course_id is empty." in done.output
    assert "1 row rejected, unknown_role; the first is enrollments.csv, line 3: The role 'studnet' is" in done.output
    assert "not_student" not in done.output


def test_of_two_sections_of_one_course_the_active_one_wins(imported: Import, rows: Rows, tmp_path: Path) -> None:
    sections = write(tmp_path / "sections.csv", "section_id,course_id,name,status", "a,c10,A,active", "b,c10,B,active")
    canvas(tmp_path, ",s1,student,a,active", ",s1,student,b,deleted", ",s2,student,a,deleted", ",s2,student,b,active")
    done, report = imported(sections.parent)
    assert (done.code, pairs(rows)) == (0, [(1, 10), (2, 10)])
    assert [row["outcome"] for row in report] == ["enrolled", "repeated", "repeated", "enrolled"]
    assert report[1]["message"] == "enrollments.csv, line 2, decides about this student and course."


def test_users_and_courses_go_to_the_catalog_when_the_plan_is_applied_and_not_before(
    run: Run, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    write(tmp_path / "users.csv", "user_id,integration_id,login_id,full_name", "007,i7,l,Ana Lima", "s1,,m,New Name")
    write(tmp_path / "courses.csv", "course_id,short_name,long_name", "MAT,M1,Mathematics")
    header = "user_integration_id,user_id,course_id,role,status"
    write(tmp_path / "enrollments.csv", header, "i7,,MAT,student,active", ",s1,MAT,student,active")
    plan = run("import", tmp_path, "--dry-run", "--json").json
    assert plan["counts"] == {"enroll": 2}
    assert len(rows("id", "students")) == 5
    done, report = imported("", "--apply", plan["id"])
    assert (done.code, done.error) == (0, "")
    assert [row["outcome"] for row in report] == ["enrolled", "enrolled"]
    assert ("007", "Ana Lima") in rows("sis_id, name", "students")
    assert ("s1", "New Name") in rows("sis_id, name", "students")
    assert ("MAT", "M1", "Mathematics") in rows("sis_id, code, title", "courses")


def test_a_dry_run_sends_nothing_and_applying_it_does_what_it_said(
    run: Run, imported: Import, rows: Rows, redis_client: Connection, tmp_path: Path
) -> None:
    path = canvas(tmp_path, "c10,s1,student,,active", "c10,s2,student,,deleted")
    report = tmp_path / "plan.json"
    done = run("import", path, "--dry-run", "--report", report)
    assert "Nothing was sent. To do this: enrollment import --apply 1" in done.output
    assert [(row["plan"], row["outcome"]) for row in json.loads(report.read_text())] == [
        ("enroll", None),
        ("unchanged", None),
    ]
    assert (redis_client.llen(BULK_QUEUE), rows("*", "commands")) == (0, [])
    assert imported("", "--apply", 1)[0].code == 0
    assert pairs(rows) == [(1, 10)]


def test_a_plan_is_refused_when_the_state_has_moved(
    run: Run, imported: Import, redis_client: Connection, tmp_path: Path
) -> None:
    path = canvas(tmp_path, "c10,s1,student,,active")
    plan = run("import", path, "--dry-run", "--json").json["id"]
    assert imported(path)[0].code == 0
    refused = run("import", "--apply", plan)
    assert (refused.code, redis_client.llen(BULK_QUEUE)) == (1, 0)
    assert f"Plan {plan} was not applied: enrollments have changed since it was made" in refused.error


def test_an_older_file_after_a_newer_one_changes_nothing_that_the_newer_decided(
    imported: Import, rows: Rows, tmp_path: Path
) -> None:
    newer = canvas(tmp_path, "c10,s1,student,,active", "c10,s2,student,,deleted")
    assert imported(newer, "--issued-at", NEWER)[0].code == 0
    older = canvas(tmp_path, "c10,s1,student,,deleted", "c10,s2,student,,active", "c10,s3,student,,active")
    _, report = imported(older, "--issued-at", OLDER)
    assert [row["outcome"] for row in report] == ["superseded", "superseded", "enrolled"]
    assert pairs(rows) == [(1, 10), (3, 10)]


def test_a_delta_file_decides_by_the_time_of_each_row(imported: Import, rows: Rows, tmp_path: Path) -> None:
    path = oneroster(
        tmp_path,
        "delta",
        f"1,c10,s1,student,active,{OLDER},,",
        f"1,c10,s1,student,tobedeleted,{NEWER},,",
        f"2,c10,s2,student,active,{NEWER},,",
    )
    done, report = imported(path)
    assert [row["outcome"] for row in report] == ["repeated", "unchanged", "enrolled"]
    assert (done.code, pairs(rows)) == (0, [(2, 10)])
    again, report = imported(path)
    assert (again.code, [row["outcome"] for row in report][1:]) == (0, ["unchanged", "unchanged"])
    assert (again.json["outcomes"]["enrolled"], again.json["outcomes"]["unchanged"]) == (0, 2)
    assert len(rows("*", "commands")) == 2


def test_a_plain_file_names_students_by_id_and_its_last_row_decides(
    imported: Import, rows: Rows, tmp_path: Path
) -> None:
    path = write(
        tmp_path / "p.csv", "student,course,action", "1,10,enroll", "2,10,", "1,10,unenroll", "s3,10,", "77,10,"
    )
    _, report = imported(path)
    assert [row["outcome"] for row in report] == ["repeated", "enrolled", "unchanged", "rejected", "rejected"]
    assert [row["code"] for row in report[3:]] == ["invalid_id", "unknown_student"]
    assert pairs(rows) == [(2, 10)]


def test_undo_takes_back_what_the_import_changed_and_nobody_has_since(
    members: None, run: Run, imported: Import, work: Callable[[], int], rows: Rows, *, tmp_path: Path
) -> None:
    path = canvas(tmp_path, "c12,s1,student,,active", "c12,s2,student,,active", "c10,s3,student,,deleted")
    before = pairs(rows)
    done, _ = imported(path)
    other = write(tmp_path / "p.csv", "student,course", "2,12")
    assert imported(other)[0].code == 0
    undone = run("import", "undo", done.json["id"], "--no-wait", "--json").json
    assert undone["counts"] == {"enroll": 1, "superseded": 1, "unenroll": 1}
    work()
    assert run("import", "--apply", undone["id"]).code == 0
    assert pairs(rows) == sorted([*before, (2, 12)])
    refused = run("import", "undo", done.json["id"])
    assert (refused.code, f"undone already, by import {undone['id']}" in refused.error) == (1, True)
    assert [row[2] for row in run("imports").rows][2] == f"undone by {undone['id']}"


def test_why_tells_the_commands_with_the_file_and_the_line(
    members: None, run: Run, imported: Import, tmp_path: Path
) -> None:
    imported(canvas(tmp_path, "c10,s1,student,,deleted"), "--name", "sis", "--issued-at", NEWER)
    imported(canvas(tmp_path, "c10,s1,student,,active"), "--issued-at", OLDER)
    told = run("why", "--student", "sis:s1", "--course", "10").output
    assert told.startswith(
        "S1 (id 1, SIS id s1) is not enrolled in C10 (id 10, SIS id c10). On 2026-01-01 00:00:00 UTC"
    )
    assert "import 1 (enrollments.csv, line 2), as import/canvas, asked to enroll them: that enrolled them." in told
    assert "as import/sis, asked to take them out: that took them out, and decides now." in told
    assert "import 3 (enrollments.csv, line 2) asked to enroll them, not sent: Something newer has decided" in told


def test_a_report_that_is_written_after_retention_says_so(
    imported: Import, run: Run, engine: Engine, tmp_path: Path
) -> None:
    done, _ = imported(canvas(tmp_path, "c10,s1,student,,active"))
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM commands"))
    report = tmp_path / "again.csv"
    assert run("imports", done.json["id"], "--report", report).code == 0
    assert [row["outcome"] for row in csv.DictReader(report.read_text().splitlines())] == ["removed"]


def test_import_can_be_killed_anywhere_and_said_again(
    variables: dict[str, str], imported: Import, engine: Engine, rows: Rows, tmp_path: Path
) -> None:
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO students (id) SELECT g FROM generate_series(1000, 40999) AS g"))
    path = write(tmp_path / "p.csv", "student,course", *(f"{n},10" for n in range(1000, 41000)))
    process = start(variables, "import", str(path), "--no-wait", stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def half_sent() -> bool:
        return bool(rows("sent", "imports WHERE sent BETWEEN 5000 AND 30000")) or process.poll() is not None

    eventually(half_sent, 90)
    process.kill()
    process.communicate()
    done, report = imported(path)
    assert (done.code, len(report), {row["outcome"] for row in report}) == (0, 40000, {"enrolled"})
    assert len(rows("id", "imports")) == 1
    assert rows("count(*), count(DISTINCT student_id)", "commands") == [(40000, 40000)]


def test_a_file_that_is_not_utf8_is_refused_whole_with_its_line(run: Run, rows: Rows, tmp_path: Path) -> None:
    path = tmp_path / "enrollments.csv"
    path.write_bytes(f"{HEADER}\nc10,s1,student,,active\nc10,Jos".encode() + b"\xe9,student,,active\n")
    done = run("import", path)
    assert done.code == 1
    assert "enrollments.csv, line 3: the byte 0xe9 at position 8 of the line is not UTF-8" in done.error
    assert rows("*", "imports") == []


def test_what_is_said_wrongly_is_told_before_anything_is_read(run: Run, tmp_path: Path) -> None:
    path = canvas(tmp_path)
    for options in (
        *([], [path, "--apply", 1], ["--apply", 1, "--dry-run"], ["--watch", tmp_path, "--once", "--dry-run"]),
        *([path, "--again"], [path, "--map", "active=unenroll"], [path, "--issued-at", "yesterday"]),
    ):
        assert run("import", *options).code == 2
    (tmp_path / "folder.csv").mkdir()
    for report in ("report.xml", "none-such/report.csv", "folder.csv"):
        assert run("import", path, "--report", tmp_path / report).code == 2
