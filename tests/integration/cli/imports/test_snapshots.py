"""Full snapshots: who is absent from one, and the guard."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cli.conftest import Run
from tests.integration.cli.imports.conftest import FOUR, NEWER, OLDER, Import, Rows, oneroster, pairs


def test_a_newer_snapshot_has_decided_about_those_whom_it_does_not_name(
    imported: Import, rows: Rows, tmp_path: Path
) -> None:
    assert imported(oneroster(tmp_path, "bulk", "1,c10,s1,student,,,,"), "--issued-at", NEWER)[0].code == 0
    late = oneroster(tmp_path, "bulk", "1,c10,s1,student,,,,", "2,c10,s2,student,,,,")
    _, report = imported(late, "--issued-at", OLDER)
    assert [row["outcome"] for row in report] == ["superseded", "superseded"]
    assert pairs(rows) == [(1, 10)]


def test_who_is_absent_from_a_snapshot_is_unenrolled_within_the_courses_of_the_file(
    members: None, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    done, report = imported(oneroster(tmp_path, "bulk", *FOUR))
    assert (done.code, pairs(rows)) == (0, [(1, 10), (1, 11), (2, 10), (3, 10), (4, 10)])
    assert {key: report[-1][key] for key in ("line", "student", "asked", "outcome")} == {
        "line": "",
        "student": "s5",
        "asked": "drop",
        "outcome": "unenrolled",
    }


def test_why_tells_who_was_absent_and_whose_row_was_ignored(
    members: None, run: Run, work: Callable[[], int], *, imported: Import, tmp_path: Path
) -> None:
    done, _ = imported(oneroster(tmp_path, "bulk", *FOUR, "5,c10,s5,teacher,,,,"))
    run("import", "undo", done.json["id"], "--no-wait")
    work()
    run("import", "--apply", 3)
    told = run("why", "--student", "5", "--course", "10").output
    assert f"import 2 of {done.json['path']} (in which they are absent), as import/oneroster, asked to take" in told
    assert "a row of import 2 (enrollments.csv, line 6) was ignored: The role is 'teacher'." in told
    assert "the undoing of import 2 (in which they are absent), as import/oneroster, asked to enroll them" in told


@pytest.mark.parametrize(
    ("lines", "options", "complaint"),
    [
        (FOUR[:2], (), "3 of the 5 who are enrolled are absent from the files, more than 20 %"),
        (FOUR[:2], ("--max-drop-percent", 100), "enrolled in C10 are absent from the files, more than 50 %"),
        (FOUR, ("--max-drops", 0), "more than 0; if that is right, raise --max-drops"),
        ((*FOUR, "9,c10,s9,student,,,,"), (), "1 row is invalid (the first is in enrollments.csv, line 6)"),
        ((*FOUR, "9,c10,s5,student,gone,,,"), (), "1 row is invalid"),
        ((), (), "The files have no row that asks for something"),
    ],
)
def test_a_guard_leaves_the_absent_enrolled_and_says_why(
    members: None, imported: Import, rows: Rows, tmp_path: Path, *, lines: Any, options: Any, complaint: str
) -> None:
    done, report = imported(oneroster(tmp_path, "bulk", *lines), *options)
    assert done.code == 4
    assert complaint in done.json["withheld"]
    assert {row["outcome"] for row in report if row["asked"] == "drop"} <= {"withheld"}
    assert len(pairs(rows)) == 6


def test_the_scope_of_a_snapshot_may_be_what_its_source_enrolled(
    members: None, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    limits = ("--scope", "source", "--max-drop-percent", 50, "--max-course-drop-percent", 100)
    assert imported(oneroster(tmp_path, "bulk", *FOUR), *limits)[0].json["counts"] == {"unchanged": 4}
    done, report = imported(oneroster(tmp_path, "bulk", *FOUR[:3]), *limits)
    assert done.code == 0
    assert [(row["student"], row["course"]) for row in report if row["asked"] == "drop"] == [("s4", "c10")]
    assert (5, 10) in pairs(rows)
