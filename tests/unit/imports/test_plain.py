"""Plain CSV, read."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.imports.formats.rows import EnrollmentRow
from tests.unit.imports.reading import asked, read


def test_a_row_without_an_action_enrolls() -> None:
    assert read("plain", "student,course", "1,2", by="id") == [EnrollmentRow(2, "1", "2", action="enroll")]


@pytest.mark.parametrize("action", ["Enroll", "UNENROLL"])
def test_an_action_is_read_in_any_case(action: str) -> None:
    assert asked(read("plain", "student,course,action", f"1,2,{action}", by="id")) == [(2, action.lower())]


def test_action_and_time_are_read_where_they_are() -> None:
    [row] = read("plain", "issued_at,course,student,action", "2026-01-31T09:30:00+01:00,2,1,unenroll", by="id")
    assert row == EnrollmentRow(2, "1", "2", action="unenroll", issued_at=datetime(2026, 1, 31, 8, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (",2,enroll,", "missing_value"),
        ("1,,enroll,", "missing_value"),
        ("x,2,enroll,", "invalid_id"),
        ("1.0,2,enroll,", "invalid_id"),
        ("٣,2,enroll,", "invalid_id"),
        ("9223372036854775808,2,enroll,", "invalid_id"),
        ("1,0,enroll,", "invalid_id"),
        (f"{'0' * 19}1{'9' * 20},2,enroll,", "invalid_id"),
        ("1,2,remove,", "unknown_action"),
        ("1,2,enroll,yesterday", "invalid_time"),
    ],
)
def test_what_cannot_be_read_is_rejected_with_its_reason(line: str, code: str) -> None:
    assert asked(read("plain", "student,course,action,issued_at", line, by="id")) == [(2, code)]


def test_an_id_of_the_student_information_system_keeps_its_zeros() -> None:
    [row] = read("plain", "student,course", "007,MAT-1", by="sis_id")
    assert isinstance(row, EnrollmentRow)
    assert (row.student, row.course, row.code) == ("007", "MAT-1", None)


@given(st.lists(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=20), min_size=1))
def test_every_line_of_any_text_is_told_with_its_own_number(values: list[str]) -> None:
    lines = ['"' + value.replace('"', '""') + '",x' for value in values]
    rows = read("plain", "student,course", *lines, by="sis_id")
    first, expected = 2, []
    for value in values:
        expected.append(first)
        first += 1 + value.count("\n")
    assert [row.line for row in rows] == expected
