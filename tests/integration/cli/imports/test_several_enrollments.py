"""Several enrollments of one student in one class, as OneRoster and Canvas have them: one that enrolls wins."""

from pathlib import Path

import pytest

from tests.integration.cli.imports.conftest import NEWER, OLDER, Import, Rows, canvas, oneroster, pairs

BULK_OLD, BULK_NOW, BULK_LATER = (
    "o,c10,s1,student,,,2020-01-01,2020-06-01",
    "n,c10,s1,student,,,2020-10-15,",
    "l,c10,s1,student,,,2999-01-10,",
)


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("mode", "lines"),
    [
        ("bulk", (BULK_OLD, BULK_NOW)),
        ("bulk", (BULK_NOW, BULK_LATER)),
        ("delta", (f"n,c10,s1,student,active,{OLDER},,", f"o,c10,s1,student,tobedeleted,{NEWER},,")),
        ("delta", (f"n,c10,s1,student,active,{OLDER},,", f"o,c10,s1,student,active,{OLDER},,2026-02-01")),
    ],
)
def test_of_two_oneroster_enrollments_of_one_class_the_active_one_wins(
    imported: Import, rows: Rows, tmp_path: Path, mode: str, lines: tuple[str, str], *, turned: bool
) -> None:
    done, report = imported(oneroster(tmp_path, mode, *(reversed(lines) if turned else lines)))
    assert done.code == 0
    assert sorted(row["outcome"] for row in report) == ["enrolled", "repeated"]
    assert pairs(rows) == [(1, 10)]


@pytest.mark.parametrize("turned", [False, True])
def test_who_has_left_and_comes_back_later_is_unenrolled_now_and_enrolled_then(
    members: None, imported: Import, rows: Rows, tmp_path: Path, *, turned: bool
) -> None:
    lines = (BULK_OLD, "p,c10,s1,student,,,2021-01-01,2021-06-01", BULK_LATER)
    others = tuple(f"{n},c10,s{n},student,,,," for n in range(2, 6))
    path = oneroster(tmp_path, "bulk", *(reversed(lines) if turned else lines), *others)
    for night in (["repeated", "unenrolled", "waiting"], ["repeated", "scheduled", "unchanged"]):
        done, report = imported(path)
        assert done.code == 0
        assert sorted(row["outcome"] for row in report if row["student"] == "s1") == night
        assert (1, 10) not in pairs(rows)
        assert len(rows("command_id", "deferred_commands")) == 1


@pytest.mark.parametrize("turned", [False, True])
def test_a_role_that_was_changed_within_one_section_unenrolls_nobody(
    members: None, imported: Import, rows: Rows, tmp_path: Path, *, turned: bool
) -> None:
    lines = ("c11,s1,Student Auditor,L1,active", "c11,s1,student,L1,deleted")
    done, report = imported(canvas(tmp_path, *(reversed(lines) if turned else lines)))
    assert done.code == 0
    assert sorted(row["outcome"] for row in report) == ["repeated", "unchanged"]
    assert (1, 11) in pairs(rows)


def test_the_same_role_by_another_name_is_the_same_enrollment(imported: Import, rows: Rows, tmp_path: Path) -> None:
    imported(canvas(tmp_path, "c11,s1,student,L1,active", "c11,s1,StudentEnrollment,L1,deleted"))
    assert pairs(rows) == []
