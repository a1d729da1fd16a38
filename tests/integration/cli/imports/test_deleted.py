"""Files that call users, sections and courses deleted, and rows that take out somebody whom nobody knows."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from models import imports
from tests.integration.cli.conftest import Run, write
from tests.integration.cli.imports.conftest import FOUR, OLDER, Import, Rows, canvas, oneroster, pairs, told

SECTIONS = "section_id,course_id,name,status"
COURSES = "course_id,short_name,long_name,status"
CLASSES = "sourcedId,status,title,classCode,courseSourcedId"


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Give a folder."""
    folder = tmp_path / "export"
    folder.mkdir()
    return folder


def test_an_active_row_of_a_deleted_section_enrolls_nobody_and_another_section_does(
    members: None, imported: Import, rows: Rows, export: Path
) -> None:
    write(export / "sections.csv", SECTIONS, "a,c10,A,deleted", "b,c10,B,active")
    canvas(export, ",s1,student,a,active", ",s2,student,a,active", ",s2,student,b,active")
    done, report = imported(export)
    assert (done.code, told(report)) == (
        0,
        [("2", "unenrolled", ""), ("3", "repeated", "repeated"), ("4", "unchanged", "")],
    )
    assert report[0]["message"] == "Its section or course is deleted, so nobody is enrolled in it."
    assert (1, 10) not in pairs(rows)


@pytest.mark.parametrize(("last", "outcome"), [("deleted", "unenrolled"), ("active", "unchanged")])
def test_an_active_row_of_a_deleted_course_enrolls_nobody(
    members: None, imported: Import, export: Path, *, last: str, outcome: str
) -> None:
    write(export / "courses.csv", COURSES, "c10,M,M,deleted", f"c10,M,M,{last}")
    _, report = imported(canvas(export, "c10,s1,student,,active").parent)
    assert told(report) == [("2", outcome, "")]


def test_an_active_row_of_a_deleted_class_enrolls_nobody(
    members: None, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    path = oneroster(tmp_path, "delta", "1,c10,s1,student,active,2026-01-03T00:00:00Z,,")
    write(path / "classes.csv", CLASSES, "c10,tobedeleted,M,M,m")
    done, report = imported(path)
    assert (done.code, told(report)) == (0, [("2", "unenrolled", "")])
    assert (1, 10) not in pairs(rows)


@pytest.mark.parametrize("options", [(), ("--wait-for-catalog", 60)])
def test_nobody_is_taken_out_of_what_is_deleted_and_was_never_in_the_catalog(
    imported: Import, tmp_path: Path, options: tuple[object, ...]
) -> None:
    write(tmp_path / "users.csv", "user_id,login_id,full_name,status", "s9,l,Bo,deleted")
    write(tmp_path / "courses.csv", COURSES, "c99,M,M,deleted")
    rows = ("c10,s9,student,,deleted", "c99,s1,student,,active", "c99,s9,student,,deleted")
    done, report = imported(canvas(tmp_path, *rows).parent, *options)
    assert (done.code, {row["outcome"] + " " + row["code"] for row in report}) == (0, {"ignored deleted"})


def test_a_row_that_takes_out_somebody_unknown_leaves_nobody_enrolled(
    members: None, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    done, report = imported(oneroster(tmp_path, "bulk", *FOUR, "9,c10,s9,student,tobedeleted,,,"))
    assert (done.code, told(report)[-2:]) == (3, [("6", "rejected", "unknown_student"), ("", "unenrolled", "")])
    assert (5, 10) not in pairs(rows)


def test_the_same_file_takes_out_whoever_has_left_since(
    run: Run, imported: Import, rows: Rows, *, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = oneroster(tmp_path, "bulk", "1,c10,s1,student,,,,2026-01-15")
    with monkeypatch.context() as then:
        then.setattr(imports, "clock", lambda _: datetime(2026, 1, 5, tzinfo=UTC))
        assert told(imported(path, "--issued-at", OLDER)[1]) == [("2", "enrolled", "")]
    done, report = imported(path, "--issued-at", OLDER)
    assert (done.code, told(report), pairs(rows)) == (0, [("2", "unenrolled", "")], [])
