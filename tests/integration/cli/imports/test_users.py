"""Users of the files who are no students, or deleted: named by rows of enrollments all the same."""

from pathlib import Path

import pytest

from tests.integration.cli.conftest import Run, write
from tests.integration.cli.imports.conftest import ONEROSTER, Import, Rows, pairs, told

TYPES = "user_id,integration_id,login_id,full_name,status,declared_user_type"
BY_ALIAS = "user_integration_id,user_id,course_id,role,status"


@pytest.mark.parametrize("row", ["i7,,c10,student,active", ",007,c10,student,active"])
@pytest.mark.parametrize("first", [True, False])
def test_a_teacher_of_canvas_with_a_students_enrollment_is_a_student_and_another_is_not(
    run: Run, imported: Import, rows: Rows, tmp_path: Path, row: str, *, first: bool
) -> None:
    write(tmp_path / "users.csv", TYPES, "007,i7,l,Ana Lima,active,teacher", "008,i8,m,Bo,active,teacher")
    write(tmp_path / "enrollments.csv", BY_ALIAS, row, "i8,,c10,teacher,active")
    plan = "" if not first else run("import", tmp_path, "--dry-run", "--json").json["id"]
    done, report = imported(*(("", "--apply", plan) if plan else (tmp_path,)))
    assert (done.code, told(report)) == (0, [("2", "enrolled", ""), ("3", "ignored", "not_student")])
    assert rows("sis_id, name", "students WHERE id > 5") == [("007", "Ana Lima")]


def test_a_teacher_of_oneroster_with_a_students_enrollment_is_a_student(
    imported: Import, rows: Rows, tmp_path: Path
) -> None:
    write(tmp_path / "users.csv", "sourcedId,status,role,givenName,familyName", "t1,,teacher,Eva,Ruiz", "t2,,teacher,,")
    write(tmp_path / "enrollments.csv", ONEROSTER, "1,c10,t1,student,,,,")
    done, report = imported(tmp_path, "--full")
    assert (done.code, told(report)) == (0, [("2", "enrolled", "")])
    assert rows("sis_id, name", "students WHERE id > 5") == [("t1", "Eva Ruiz")]


def test_a_user_whom_the_file_of_roles_calls_no_student_is_told_so(imported: Import, tmp_path: Path) -> None:
    write(tmp_path / "users.csv", "sourcedId,status,givenName,familyName", "t1,,Eva,Ruiz")
    write(tmp_path / "roles.csv", "sourcedId,userSourcedId,roleType,role", "1,t1,primary,teacher")
    write(tmp_path / "enrollments.csv", ONEROSTER, "1,c10,t1,student,,,,", "2,c10,t2,student,,,,")
    assert [row["message"] for row in imported(tmp_path)[1]] == [
        "The file of roles does not call the user t1 a student.",
        "There is no student with the SIS id t2.",
    ]


def test_a_deleted_user_is_found_by_the_integration_id_and_is_no_new_student(
    members: None, imported: Import, rows: Rows, tmp_path: Path
) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    write(folder / "users.csv", TYPES, "s1,i1,l,Ana,deleted,", "009,i9,m,Bo,deleted,")
    write(folder / "enrollments.csv", BY_ALIAS, "i1,,c10,student,deleted", "i9,,c10,student,active")
    _, report = imported(folder)
    assert told(report) == [("2", "unenrolled", ""), ("3", "rejected", "unknown_student")]
    assert report[1]["message"] == "The files call the user 009 deleted."
    assert rows("sis_id", "students WHERE id > 5") == []
    assert (1, 10) not in pairs(rows)
