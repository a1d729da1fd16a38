"""Rows of imports whose students or courses come in another file."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from enrollment.commands import format_time
from tests.integration.cli.conftest import Run, write
from tests.integration.cli.imports.conftest import NEWER, OLDER, Import, Rows, canvas, pairs, told
from tests.integration.locked import release_all
from worker.service import Service

LAST = "9999-12-31T23:59:59Z"
DAY = ("--wait-for-catalog", 86_400)
Work = Callable[[], int]
Load = Callable[[str], None]


def users(folder: Path, *ids: str) -> Path:
    return write(folder / "users.csv", "user_id,login_id,full_name", *(f"{id_},l,Somebody" for id_ in ids))


def report_of(run: Run, import_id: int, path: Path) -> list[tuple[str, str, str]]:
    run("imports", import_id, "--report", path)
    lines = [line.split(",") for line in path.read_text().splitlines()[1:]]
    return [(line[1], line[6], line[7]) for line in lines]


def test_users_may_come_in_another_file_than_the_enrollments(
    run: Run, work: Work, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    path = canvas(tmp_path, "c10,s1,student,,active", "c10,s9,student,,active", "MAT,s9,student,,active")
    done, report = imported(path, *DAY, "--issued-at", OLDER)
    assert done.code == 0
    assert told(report) == [("2", "enrolled", ""), ("3", "waiting", ""), ("4", "waiting", "")]
    assert report[1]["message"] == "Its student or course is not in the catalog yet."
    run("import", users(tmp_path, "s9"), "--no-wait")
    work()
    assert (1, 10) in pairs(rows)
    assert report_of(run, done.json["id"], tmp_path / "then.csv") == [
        ("2", "enrolled", ""),
        ("4", "waiting", ""),
        ("3", "enrolled", ""),
    ]
    courses = write(tmp_path / "courses.csv", "course_id,short_name,long_name", "MAT,M1,Mathematics")
    run("import", courses, "--no-wait")
    work()
    again = run("import", "--apply", done.json["id"], "--json")
    assert (again.code, again.json["counts"], again.json["state"]) == (0, {"enroll": 3}, "done")
    assert again.json["outcomes"]["enrolled"] == len(pairs(rows)) == 3


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENROLLMENT_WAIT_FOR_CATALOG", "0,import/plain=3600")


@pytest.mark.usefixtures("patient")
def test_a_deployment_lets_the_rows_of_a_source_wait_and_ids_of_this_system_wait_in_the_worker(
    imported: Import, rows: Rows, service: Service, load: Load, tmp_path: Path
) -> None:
    path = write(tmp_path / "rows.csv", "student,course", "1,10", "900,10", "1,900", "900,x")
    _, report = imported(path)
    assert told(report) == [
        ("2", "enrolled", ""),
        ("3", "waiting", ""),
        ("4", "waiting", ""),
        ("5", "rejected", "invalid_id"),
    ]
    [[wait]] = rows("DISTINCT round(extract(epoch FROM until - now()) / 60)", "deferred_commands")
    assert wait <= 60
    load("INSERT INTO students (id) VALUES (900)")
    load("INSERT INTO courses (id) VALUES (900)")
    release_all(service)
    assert pairs(rows) == [(1, 10), (1, 900), (900, 10)]
    assert imported(path)[0].json["outcomes"]["unchanged"] == 3
    assert not rows("*", "dead_letters WHERE code <> 'invalid_command'")


def test_rows_whose_wait_is_over_are_rejected_with_the_codes_of_today(
    run: Run, imported: Import, load: Load, tmp_path: Path
) -> None:
    done, _ = imported(canvas(tmp_path, "c10,s9,student,,active", "c99,s1,student,,active"), *DAY)
    load("UPDATE imports SET created_at = created_at - interval '1 day'")
    over = run("import", "--apply", done.json["id"], "--json")
    assert over.code == 3
    assert report_of(run, done.json["id"], tmp_path / "then.csv") == [
        ("2", "rejected", "unknown_student"),
        ("3", "rejected", "unknown_courses"),
    ]


def test_what_a_newer_snapshot_decided_is_not_undone_by_rows_that_waited(
    run: Run, work: Work, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    path = canvas(tmp_path, "c10,s9,student,,active", "c11,s9,student,,active")
    done, _ = imported(path, *DAY, "--issued-at", OLDER)
    imported(canvas(tmp_path, "c10,s1,student,,active"), "--issued-at", NEWER, "--full")
    users(tmp_path, "s9")
    run("import", tmp_path / "users.csv", "--no-wait")
    work()
    assert report_of(run, done.json["id"], tmp_path / "then.csv") == [
        ("2", "superseded", "superseded"),
        ("3", "enrolled", ""),
    ]
    assert [course for student, course in pairs(rows) if student > 5] == [11]


@pytest.mark.parametrize("by", ["sis_id", "id"])
def test_a_row_that_waits_may_be_a_mistyped_one_and_holds_the_absent_back(
    members: None, imported: Import, rows: Rows, tmp_path: Path, by: str
) -> None:
    students, course = ([1, 2, 3, 4, 9], "10") if by == "id" else (["s1", "s2", "s3", "s4", "s9"], "c10")
    path = write(tmp_path / "all.csv", "student,course", *(f"{it},{course}" for it in students))
    done, report = imported(path, *DAY, "--by", by, "--full", "--scope", "courses")
    assert (done.code, report[-1]["outcome"]) == (4, "withheld")
    assert report[-1]["message"].startswith("1 row is invalid or waiting (the first is in all.csv, line 6)")
    assert (5, 10) in pairs(rows)


def test_of_two_rows_for_one_student_that_is_not_there_one_decides(imported: Import, tmp_path: Path) -> None:
    write(tmp_path / "sections.csv", "section_id,course_id,name,status", "a,c10,A,active", "b,c10,B,active")
    canvas(tmp_path, ",s9,student,a,active", ",s9,student,b,deleted")
    _, report = imported(tmp_path, *DAY)
    assert [row["outcome"] for row in report] == ["waiting", "repeated"]


def test_undo_ends_what_waits_for_the_catalog(
    run: Run, work: Work, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    done, _ = imported(canvas(tmp_path, "c10,s9,student,,active"), *DAY)
    run("import", "undo", done.json["id"], "--no-wait")
    run("import", users(tmp_path, "s9"), "--no-wait")
    assert work() == 0
    assert report_of(run, done.json["id"], tmp_path / "then.csv") == [("2", "withdrawn", "")]


def test_a_row_may_wait_for_its_student_and_then_for_its_time(
    run: Run, work: Work, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    at = format_time(datetime.now(UTC) + timedelta(days=3))
    path = write(tmp_path / "rows.csv", "student,course,effective_at", f"s9,c10,{at}")
    imported(path, *DAY, "--by", "sis_id")
    run("import", users(tmp_path, "s9"), "--no-wait")
    work()
    assert rows("reason", "deferred_commands") == [("time",)]


@pytest.mark.parametrize("by", ["sis_id", "id"])
def test_a_row_that_takes_effect_later_waits_for_its_student_from_then_on(
    run: Run, imported: Import, service: Service, load: Load, *, tmp_path: Path, by: str
) -> None:
    at = format_time(datetime.now(UTC) + timedelta(days=3))
    names = ("s9,c10", "s9,c11") if by == "sis_id" else ("900,10", "900,11")
    path = write(tmp_path / "rows.csv", "student,course,effective_at", f"{names[0]},{at}", f"{names[1]},{LAST}")
    done, _ = imported(path, *DAY, "--by", by)
    load("UPDATE imports SET created_at = created_at - interval '2 days'")
    assert run("import", "--apply", done.json["id"]).code == 0
    assert [row[1] for row in report_of(run, done.json["id"], tmp_path / "then.csv")] == ["waiting"] * 2
    if by == "sis_id":
        assert "that waits, until 9999-12-31" in run("why", "--student", "sis:s9", "--course", "11").output


def test_why_names_the_rows_that_wait(run: Run, imported: Import, load: Load, tmp_path: Path) -> None:
    imported(canvas(tmp_path, "c10,s9,student,,active", "MAT,s1,student,,deleted"), *DAY, "--issued-at", OLDER)
    absent = run("why", "--student", "sis:s9", "--course", "10")
    assert absent.code == 0
    assert absent.output.startswith(
        "There is no student with the SIS id s9. On 2026-01-01 00:00:00 UTC import 1 (enrollments.csv, line 2) asked "
        "to enroll the student in c10: that waits, until "
    )
    assert "at the longest, for the student, not in the catalog yet." in absent.output
    told = run("why", "--student", "1", "--course", "sis:MAT").output
    assert "line 3) asked to take the student out of MAT: that waits" in told
    assert "for the course, not in the catalog yet." in told
    load("INSERT INTO students (id, sis_id) VALUES (9, 's9')")
    told = run("why", "--student", "sis:s9", "--course", "10").output
    assert "is not enrolled in C10 (id 10, SIS id c10). On 2026-01-01" in told
    assert "which are there now: the next import sends it, or `enrollment import --apply 1`" in told
    unknown = run("why", "--student", "sis:s8", "--course", "x")
    assert (unknown.code, unknown.error) == (1, "Error: There is no student with the SIS id s8.\n")
