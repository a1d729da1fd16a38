"""Canvas SIS CSV, read."""

from typing import Any

import pytest

from tasks.imports.formats import canvas
from tasks.imports.formats.rows import CROSS_LISTED, CatalogRow, EnrollmentRow, FileError, Reading, Sheet
from tests.unit.imports.reading import TODAY, asked, read

HEADER = "course_id,user_id,role,section_id,status"


@pytest.mark.parametrize(
    ("status", "action"),
    [
        ("active", "enroll"),
        ("deleted", "unenroll"),
        ("deleted_last_completed", "unenroll"),
        ("completed", "unenroll"),
        ("inactive", "unenroll"),
        ("Active", "enroll"),
        ("", "unknown_status"),
        ("concluded", "unknown_status"),
    ],
)
def test_each_status_asks_for_what_the_table_says_and_an_unknown_one_is_rejected(status: str, action: str) -> None:
    assert asked(read("canvas", HEADER, f"C,U,student,,{status}")) == [(2, action)]


@pytest.mark.parametrize(("action", "expected"), [("enroll", "enroll"), ("ignore", "left_out")])
def test_the_meaning_of_completed_can_be_mapped(action: str, expected: str) -> None:
    rows = read("canvas", HEADER, "C,U,student,,completed", statuses={"completed": action})
    assert asked(rows) == [(2, expected)]


def test_only_the_role_student_asks_for_something() -> None:
    rows = read("canvas", HEADER, "C,U,TaEnrollment,,active", "C,U,Grader,,deleted", "C,U,,,active")
    assert asked(rows) == [(2, "not_student"), (3, "unknown_role"), (4, "missing_value")]
    assert [row.ignored for row in rows if isinstance(row, EnrollmentRow)] == [True, False, False]


def test_roles_of_a_schools_own_can_be_named() -> None:
    others = frozenset({"grader", "student aide"})
    rows = read("canvas", HEADER, "C,U,Grader,,active", "C,U,Student Aide,,active", other_roles=others)
    assert asked(rows) == [(2, "not_student"), (3, "not_student")]


def test_the_base_of_a_role_of_a_schools_own_says_whether_it_is_a_students() -> None:
    lines = ("C,U,Auditor,,active,StudentEnrollment", "C,U,Grader,,active,TaEnrollment", "C,U,student,,active,")
    rows = read("canvas", f"{HEADER},base_role_type", *lines)
    assert asked(rows) == [(2, "enroll"), (3, "not_student"), (4, "enroll")]
    assert asked(read("canvas", f"{HEADER},base_role_type", lines[0], other_roles=frozenset({"auditor"}))) == [
        (2, "not_student")
    ]


def test_a_role_with_a_quote_in_it_is_rejected() -> None:
    rows = read("canvas", HEADER, 'C,U,stu"dent,,active', 'C,U,"student\u2028",,active', 'C,U,"a\nb",,active')
    assert asked(rows) == [(2, "unknown_role"), (3, "enroll"), (4, "unknown_role")]


def test_lines_between_two_stray_quotes_are_never_one_row() -> None:
    swallowed = ('C,U,student,,active,"x', "C,V,student,,active,x", 'C,W,student,,active,x"', "C,X,student,,active,x")
    assert asked(read("canvas", f"{HEADER},notes", *swallowed)) == [(2, "not_csv"), (5, "enroll")]
    assert asked(read("canvas", f"{HEADER},notes", 'C,U,student,,active,"one, two', 'three"')) == [(2, "enroll")]


def test_a_line_with_a_nul_byte_is_rejected_and_the_next_is_read() -> None:
    assert asked(read("canvas", HEADER, "C,U,student,\0,active", "C,V,student,,active")) == [
        (2, "not_csv"),
        (3, "enroll"),
    ]


@pytest.mark.parametrize("role", ["Student", "StudentEnrollment"])
def test_a_role_that_begins_with_student_is_a_students(role: str) -> None:
    assert asked(read("canvas", HEADER, f"C,U,{role},,active")) == [(2, "enroll")]


def test_values_that_stand_in_the_wrong_columns_are_never_taken_for_another_role() -> None:
    assert asked(read("canvas", HEADER, "C,student,S1,active,")) == [(2, "unknown_status")]


def test_columns_are_found_by_name_in_any_order_and_ids_stay_text() -> None:
    [row] = read("canvas", "status,role,user_id,course_id", "active,student,007,0042")
    assert row == EnrollmentRow(2, "007", "0042", "", "enroll", own_key="student")


def test_a_student_may_be_named_by_the_integration_id_and_the_course_by_a_section() -> None:
    [row] = read("canvas", "user_integration_id,section_id,role,status", "i1,s1,student,active")
    assert row == EnrollmentRow(2, "i1", "", "s1", "enroll", by_alias=True, own_key="student")


def test_without_the_column_role_a_file_is_refused_and_without_a_role_a_row_is_rejected() -> None:
    with pytest.raises(FileError, match=r"line 1: the column role_id is not read; export the column role as well\."):
        read("canvas", "course_id,user_id,role_id,status", "C,U,3,active")
    [row] = read("canvas", f"{HEADER},role_id", "C,U,,,active,3")
    assert isinstance(row, EnrollmentRow)
    assert row.message == "The role is empty. The role_id is not read; export the column role as well."


def test_more_logins_of_users_are_no_users() -> None:
    assert canvas.part_of(frozenset({"user_id", "login_id", "status"})) == "users"
    assert canvas.part_of(frozenset({"user_id", "login_id", "existing_user_id", "email"})) is None


@pytest.mark.parametrize("line", [",U,student,,active", "C,,student,,active"])
def test_a_row_without_student_or_course_is_rejected(line: str) -> None:
    assert asked(read("canvas", HEADER, line)) == [(2, "missing_value")]


@pytest.mark.parametrize(
    ("lines", "entries"),
    [
        (
            ("user_id,integration_id,login_id,full_name,status", "u,i,l,Ana Lima,active", "v,,m,Bo,deleted"),
            [
                CatalogRow(2, "student", "u", alias="i", title="Ana Lima"),
                CatalogRow(3, "other", "v", code="deleted", title="Bo"),
            ],
        ),
        (("user_id,first_name,last_name", "u,Ana,Lima"), [CatalogRow(2, "student", "u", title="Ana Lima")]),
        (
            ("user_id,login_id,full_name,declared_user_type", "u,l,Ana,teacher", "v,m,Bo,student_other"),
            [CatalogRow(2, "other", "u", title="Ana"), CatalogRow(3, "student", "v", title="Bo")],
        ),
        (
            ("course_id,short_name,long_name,status", "c,MAT,Mathematics,active", "d,X,Y,deleted"),
            [CatalogRow(2, "course", "c", code="MAT", title="Mathematics"), CatalogRow(3, "gone_course", "d")],
        ),
        (
            ("section_id,course_id,name,status", "s,c,One,active", "t,c,Two,deleted"),
            [
                CatalogRow(2, "section", "s", parent="c"),
                CatalogRow(3, "section", "t", parent="c"),
                CatalogRow(3, "gone_section", "t"),
            ],
        ),
        (
            ("xlist_course_id,section_id,status", "x,s,active", "y,t,deleted"),
            [CatalogRow(2, "section", "s", parent="x", code=CROSS_LISTED)],
        ),
    ],
)
def test_users_courses_and_sections_become_entries_of_the_catalog(lines: Any, entries: list[CatalogRow]) -> None:
    assert read("canvas", *lines) == entries


def test_a_quoted_line_break_does_not_shift_the_lines_that_are_told() -> None:
    rows = read("canvas", "user_id,login_id,full_name", 'u,l,"Ana', 'Lima"', ",m,Bo")
    assert [(row.line, type(row)) for row in rows] == [(2, CatalogRow), (4, EnrollmentRow)]


def test_a_row_of_another_length_is_rejected_and_the_others_are_read() -> None:
    rows = read("canvas", HEADER, "C,U,student,active", "", "C,V,student,,active", "C,W,student,,active,,x")
    assert asked(rows) == [(2, "wrong_columns"), (4, "enroll"), (5, "wrong_columns")]


def test_commas_at_the_end_and_columns_that_nobody_reads_may_be_more_or_fewer() -> None:
    rows = read("canvas", f"{HEADER},notify,,", "C,U,student,,active", "C,V,student,,active,,,,,", " , ,,,,", ",")
    assert asked(rows) == [(2, "enroll"), (3, "enroll")]


def test_a_last_line_that_is_cut_off_is_rejected_although_only_what_nobody_reads_is_missing() -> None:
    sheet = Sheet("enrollments.csv", [f"{HEADER},notify,notes\n", "C,U,student,,active,true"])
    assert asked(canvas.read(sheet, "enrollments", Reading(TODAY))) == [(2, "wrong_columns")]


def test_a_quote_in_the_wrong_place_costs_its_own_row() -> None:
    rows = read("canvas", HEADER, 'C,"U"x,student,,active', "C,V,student,,active")
    assert asked(rows) == [(2, "not_csv"), (3, "enroll")]
