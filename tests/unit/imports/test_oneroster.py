"""OneRoster 1.1 and 1.2 CSV, read."""

import io
from datetime import UTC, datetime

import pytest

from tasks.imports.formats import detect, oneroster
from tasks.imports.formats.rows import CatalogRow, EnrollmentRow, FileError, Sheet
from tests.unit.imports.reading import asked, read

HEADER = "sourcedId,status,dateLastModified,classSourcedId,schoolSourcedId,userSourcedId,role,primary,beginDate,endDate"
TIME = "2026-01-15T09:30:00.000Z"
AT = datetime(2026, 1, 15, 9, 30, tzinfo=UTC)
BULK, DELTA = {"enrollments": "bulk"}, {"enrollments": "delta"}


def row(status: str = "", time: str = "", *, role: str = "student", begin: str = "", end: str = "") -> str:
    return f"e1,{status},{time},class,school,007,{role},false,{begin},{end}"


def test_in_a_bulk_file_every_row_enrolls_at_the_time_of_the_import() -> None:
    [found] = read("oneroster", HEADER, row(), modes=BULK)
    assert found == EnrollmentRow(2, "007", "class", "", "enroll", own_key="e1")


@pytest.mark.parametrize(("status", "action"), [("active", "enroll"), ("tobedeleted", "unenroll")])
def test_in_a_delta_file_the_status_decides_at_the_time_of_the_row(status: str, action: str) -> None:
    [found] = read("oneroster", HEADER, row(status, TIME), modes=DELTA)
    assert found == EnrollmentRow(2, "007", "class", "", action, AT, own_key="e1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "time", "code"),
    [
        ("", TIME, "unknown_status"),
        ("inactive", TIME, "unknown_status"),
        ("active", "", "invalid_time"),
        ("active", "2026-01-15", "invalid_time"),
    ],
)
def test_a_delta_row_needs_both_the_status_and_the_time(status: str, time: str, code: str) -> None:
    assert asked(read("oneroster", HEADER, row(status, time), modes=DELTA)) == [(2, code)]


@pytest.mark.parametrize("time", ["2026-01-15T09:30:00", "2026-01-15 09:30", "2026-01-15T10:30:00.000+01:00"])
def test_a_time_may_be_in_any_form_of_iso_8601_and_is_in_utc_where_it_says_no_offset(time: str) -> None:
    [found] = read("oneroster", HEADER, row("Active", time, role="Student"), modes=DELTA)
    assert found == EnrollmentRow(2, "007", "class", "", "enroll", AT, own_key="e1")


def test_a_day_alone_is_no_time_to_order_by_so_a_file_that_needs_none_has_that_of_the_import() -> None:
    [found] = read("oneroster", HEADER, row("active", "2026-01-15"))
    assert found == EnrollmentRow(2, "007", "class", "", "enroll", own_key="e1")


@pytest.mark.parametrize(
    ("begin", "end", "outcome"),
    [
        ("", "2026-02-01", "unenroll"),  # exclusive: not enrolled on this day, which is today
        ("", "2026-02-02", "enroll"),
        ("2026-02-01", "", "enroll"),
        ("2025-09-01", "2026-01-31", "unenroll"),
        ("2026-13-01", "", "invalid_time"),
    ],
)
def test_the_range_of_days_decides_what_is_asked_for_today(begin: str, end: str, outcome: str) -> None:
    assert asked(read("oneroster", HEADER, row(begin=begin, end=end), modes=BULK)) == [(2, outcome)]


def test_a_day_that_is_yet_to_come_is_when_it_takes_effect() -> None:
    [found] = read("oneroster", HEADER, row(begin="2026-02-02"), modes=BULK)
    assert found == EnrollmentRow(2, "007", "class", "", "enroll", None, datetime(2026, 2, 2, tzinfo=UTC), own_key="e1")


def test_an_end_that_has_come_is_newer_than_the_row_that_enrolled() -> None:
    [found] = read("oneroster", HEADER, row("active", TIME, end="2026-01-20"), modes=DELTA)
    assert isinstance(found, EnrollmentRow)
    assert (found.action, found.issued_at) == ("unenroll", datetime(2026, 1, 20, tzinfo=UTC))


def test_the_column_order_of_version_1_0_is_read_by_name() -> None:
    header = "sourcedId,classSourcedId,schoolSourcedId,userSourcedId,role,status,dateLastModified,primary"
    [found] = read("oneroster", header, f"e1,class,school,007,student,active,{TIME},false", modes=DELTA)
    assert found == EnrollmentRow(2, "007", "class", "", "enroll", AT, own_key="e1")


def test_a_course_may_be_the_class_or_its_course() -> None:
    classes = ("sourcedId,status,title,classCode,courseSourcedId", "k,,Algebra 1a,A1a,c")
    assert read("oneroster", *classes) == [CatalogRow(2, "course", "k", code="A1a", title="Algebra 1a")]
    assert read("oneroster", *classes, course_is="course") == [CatalogRow(2, "section", "k", parent="c")]
    courses = ("sourcedId,status,title,courseCode", "c,,Algebra,A1", "d,tobedeleted,Old,O")
    assert read("oneroster", *courses) == []
    assert read("oneroster", *courses, course_is="course") == [
        CatalogRow(2, "course", "c", code="A1", title="Algebra"),
        CatalogRow(3, "gone_course", "d"),
    ]
    [found] = read("oneroster", HEADER, row(), course_is="course")
    assert found == EnrollmentRow(2, "007", "", "class", "enroll", own_key="e1")


def test_a_class_without_a_course_is_rejected_where_its_course_is_wanted() -> None:
    classes = ("sourcedId,status,title,classCode,courseSourcedId", "k,,Algebra 1a,A1a,")
    assert asked(read("oneroster", *classes, course_is="course")) == [(2, "missing_value")]


@pytest.mark.parametrize(("course_is", "kinds"), [("class", ["gone_course"]), ("course", ["section", "gone_section"])])
def test_a_class_that_is_to_be_deleted_is_gone(course_is: str, kinds: list[str]) -> None:
    rows = read(
        *("oneroster", "sourcedId,status,title,classCode,courseSourcedId", "k,tobedeleted,A,A1,c"), course_is=course_is
    )
    assert [row.kind for row in rows if isinstance(row, CatalogRow)] == kinds


def test_only_students_go_to_the_catalog_by_role_or_by_the_file_of_roles() -> None:
    users = ("sourcedId,status,role,givenName,familyName", "u,,student,Ana,Lima", "t,,teacher,Eva,Ruiz")
    assert read("oneroster", *users) == [
        CatalogRow(2, "student", "u", title="Ana Lima"),
        CatalogRow(3, "other", "t", title="Eva Ruiz"),
    ]
    lines = ("1,u,primary,student,", "2,t,primary,teacher,", "3,v,primary,studnet,")
    [student, wrong] = read("oneroster", "sourcedId,userSourcedId,roleType,role,status", *lines)
    assert (student, asked([wrong])) == (CatalogRow(2, "role", "u"), [(4, "unknown_role")])


def test_only_the_role_student_asks_for_something() -> None:
    roles = ("teacher", "", "ext:assistant", "studnet", 'stu"dent')
    assert asked(read("oneroster", HEADER, *(row(role=role) for role in roles))) == [
        (2, "not_student"),
        (3, "missing_value"),
        (4, "other_role"),
        (5, "unknown_role"),
        (6, "unknown_role"),
    ]


def manifest(*lines: str) -> Sheet:
    sheet = Sheet("manifest.csv", io.StringIO("\n".join(("propertyName,value", *lines)), newline=""))
    assert detect(sheet) == (oneroster, "manifest")
    return sheet


def test_the_manifest_says_what_each_file_is() -> None:
    found = oneroster.modes(manifest("oneroster.version,1.2", "file.enrollments,bulk", "file.users,delta"))
    assert found == {"enrollments": "bulk", "users": "delta"}


def test_what_a_manifest_says_of_files_that_nobody_reads_is_passed_over() -> None:
    assert oneroster.modes(manifest("file.lineItems,none", ",", "file.userprofiles,", "file.users,Bulk")) == {
        "users": "bulk"
    }


def test_a_manifest_with_a_mode_that_there_is_not_is_refused() -> None:
    with pytest.raises(FileError, match=r"manifest.csv, line 2: file.enrollments is 'full', and must be one of bulk,"):
        oneroster.modes(manifest("file.enrollments,full"))
