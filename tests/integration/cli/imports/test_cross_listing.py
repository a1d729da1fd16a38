"""Sections of Canvas that are cross-listed: which course a row is about, and which of two rows for it decides."""

from pathlib import Path

import pytest

from tests.integration.cli.conftest import write
from tests.integration.cli.imports.conftest import Import, Rows, canvas, pairs


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """Have section a of c10 cross-listed to c11, which has b; c is back in its own course; d is only in xlists.csv."""
    folder = tmp_path / "export"
    folder.mkdir()
    header = "section_id,course_id,name,status"
    write(folder / "sections.csv", header, "a,c10,A,active", "b,c11,B,active", "c,c12,C,active")
    crossed = ("c11,a,active", "c11,c,deleted", "c13,d,active")
    write(folder / "xlists.csv", "xlist_course_id,section_id,status", *crossed)
    return folder


@pytest.mark.parametrize("rows_first", [("a,active", "b,deleted"), ("b,active", "a,deleted")])
@pytest.mark.parametrize("turned", [False, True])
def test_two_sections_of_one_course_are_one_pair_and_the_active_one_wins(
    imported: Import, rows: Rows, export: Path, *, rows_first: tuple[str, str], turned: bool
) -> None:
    course = {"a": "c10", "b": "c11"}
    asked = [f"{course[row[0]]},s1,student,{row}" for row in rows_first]
    done, report = imported(canvas(export, *(reversed(asked) if turned else asked)).parent)
    assert done.code == 0
    assert sorted(row["outcome"] for row in report) == ["enrolled", "repeated"]
    assert {row["course"] for row in report} == {"c11"}
    assert pairs(rows) == [(1, 11)]


def test_the_course_of_a_section_is_that_of_the_cross_listing_while_it_is_active(
    imported: Import, rows: Rows, export: Path
) -> None:
    asked = ("c10,s1,student,a,active", ",s2,student,a,active", "c12,s3,student,c,active", ",s4,student,d,active")
    assert imported(canvas(export, *asked).parent)[0].code == 0
    assert pairs(rows) == [(1, 11), (2, 11), (3, 12), (4, 13)]


def test_a_student_is_taken_out_where_the_rows_of_both_sections_are_deleted(
    imported: Import, rows: Rows, export: Path
) -> None:
    imported(canvas(export, ",s1,student,a,active", ",s1,student,b,active").parent)
    _, report = imported(canvas(export, ",s1,student,a,deleted", ",s1,student,b,deleted").parent)
    assert sorted(row["outcome"] for row in report) == ["repeated", "unenrolled"]
    assert pairs(rows) == []


def test_a_snapshot_with_cross_listed_sections_counts_their_students_as_those_of_the_other_course(
    imported: Import, rows: Rows, export: Path
) -> None:
    imported(canvas(export, *(f",s{n},student,a,active" for n in range(1, 6))).parent)
    again = (*(f"c10,s{n},student,a,active" for n in range(1, 4)), ",s4,student,b,active")
    done, report = imported(canvas(export, *again).parent, "--full")
    assert done.code == 0
    assert [(row["student"], row["course"]) for row in report if row["asked"] == "drop"] == [("s5", "c11")]
    assert pairs(rows) == [(n, 11) for n in range(1, 5)]
