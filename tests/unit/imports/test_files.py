"""What is at a path: files, folders and zips, told apart by their headers."""

import os
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.imports.files import Parts, opened
from tasks.imports.formats import FORMATS, named
from tasks.imports.formats.rows import FileError
from tasks.imports.plan import ImportRequest, namespaces
from tasks.imports.report import COLUMNS
from worker.cli import importing

ENROLLMENTS = "course_id,user_id,role,status\nC,U,student,active\n"
ONEROSTER = "sourcedId,classSourcedId,userSourcedId,role\ne,c,u,student\n"
OTHERS = (  # of Canvas and of OneRoster
    *("abstract_courses", "accounts", "admins", "change_sis_id", "differentiation_tag_membership", "group_categories"),
    "enrollment_terms",
    *("differentiation_tag_sets", "differentiation_tags", "groups", "groups_membership", "logins", "terms"),
    *("user_observers", "academicSessions", "categories", "classResources", "courseResources", "demographics"),
    *("lineItemLearningObjectiveIds", "lineItemScoreScales", "lineItems", "orgs", "resources", "results"),
    *("resultLearningObjectiveIds", "resultScoreScales", "scoreScales", "userProfiles", "userResources"),
)


def parts(path: Path, format_name: str | None = None) -> Parts:
    with opened(path) as (files, _):
        return Parts.of(files, named(format_name) if format_name else None)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    def make(**files: str | bytes) -> Path:
        for name, content in files.items():
            (tmp_path / f"{name}.csv").write_bytes(content.encode() if isinstance(content, str) else content)
        return tmp_path

    return make


def read_all(path: Path) -> None:
    with opened(path) as (files, _):
        for file, _ in Parts.of(files, None).files:
            list(file.lines())


def digest(path: Path) -> str:
    with opened(path) as (files, _):
        return Parts.of(files, None).digest()


def test_a_folder_and_its_zip_are_the_same_import(folder: Callable[..., Path], tmp_path: Path) -> None:
    path = folder(enrollments=ENROLLMENTS, users="user_id,login_id\nU,l\n", terms="term_id,name\n1,x\n")
    archive = tmp_path / "export.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for item in path.glob("*.csv"):
            file.write(item, f"export/{item.name}")
        file.writestr("__MACOSX/export/._users.csv", "x")
    assert digest(path) == digest(archive)
    found = parts(archive)
    assert found.format.NAME == "canvas"
    assert [part for _, part in found.files] == ["enrollments", "users"]
    assert found.left_out == ("terms.csv",)


def test_a_file_without_line_ends_is_not_read_whole(folder: Callable[..., Path]) -> None:
    path = folder(enrollments=ENROLLMENTS + "x" * 3_000_000)
    with pytest.raises(FileError, match=r"enrollments\.csv, line 3 is longer than 1,048,576 characters"):
        read_all(path)


def test_a_file_that_the_manifest_calls_absent_is_left_out(folder: Callable[..., Path]) -> None:
    users = "sourcedId,givenName,familyName\nu,A,B\n"
    found = parts(folder(enrollments=ONEROSTER, users=users, manifest="propertyName,value\nfile.users,absent\n"))
    assert ([part for _, part in found.files], found.left_out) == (["enrollments"], ("users.csv",))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("", "enrollments.csv, line 1: this header is not known; it is empty."),
        ("sep=,\na,b\n", "enrollments.csv, line 1: sep= is there for Excel only; delete this line."),
        ("sep=;\na;b\n", "enrollments.csv, line 1: sep= is there for Excel only; delete this line."),
        ("a,b\n", "enrollments.csv, line 1: this header is not known; it has a, b. Needed is one of oneroster: "),
        ("course_id;user_id;status\n", "it is separated by ';', and must be by commas"),
        ("course_id,user_id,Status,status\n", "enrollments.csv, line 1: the column 'Status' is there twice"),
        (b"course_id,user_id,role,status\nC,Jos\xe9,student,active\n", "line 2: the byte 0xe9 at position 6 "),
        (
            ENROLLMENTS.encode("utf-16-le"),
            "line 1: it has NUL bytes, as a file of another encoding has; export it as UTF-8.",
        ),
        ('course_id,user_id,role,"status\nC,U,student",active\n', "the header goes on up to line 2"),
        ("course_id,role,section_id,status\n", "line 1: this header is not known; it has course_id, role, section_id"),
        ("course_id,section_id,status\n", "which are the columns of sections.csv; correct the header, or the name"),
        (ENROLLMENTS.encode("utf-16"), "line 1: the byte 0xff at position 1 of the line is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_with_its_line(
    folder: Callable[..., Path], content: str | bytes, complaint: str
) -> None:
    path = folder(enrollments=content) / "enrollments.csv"
    with pytest.raises(FileError) as caught:
        read_all(path)
    assert complaint in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_first_column(folder: Callable[..., Path]) -> None:
    assert parts(folder(enrollments=b"\xef\xbb\xbf" + ENROLLMENTS.encode())).format.NAME == "canvas"


def test_a_format_can_be_insisted_on(folder: Callable[..., Path]) -> None:
    with pytest.raises(FileError, match="Needed is one of oneroster"):
        parts(folder(enrollments=ENROLLMENTS), "oneroster")


def test_two_formats_in_one_folder_are_not_guessed_about(folder: Callable[..., Path]) -> None:
    with pytest.raises(FileError, match="is of another format than"):
        parts(folder(enrollments=ENROLLMENTS, other=ONEROSTER))


@pytest.mark.parametrize("content", [b"PK\x03\x04 cut off", b""])
def test_half_a_zip_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "export.zip"
    path.write_bytes(content)
    with pytest.raises(FileError, match="is not a zip file, or only a part of one"):
        parts(path)


@pytest.mark.parametrize(("at", "value"), [(6, 1), (8, 99)])
def test_a_zip_with_a_password_or_an_unknown_compression_is_refused(tmp_path: Path, at: int, value: int) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("enrollments.csv", ENROLLMENTS)
    data = bytearray(path.read_bytes())
    data[at] = data[data.index(b"PK\1\2") + at + 2] = value
    path.write_bytes(data)
    with pytest.raises(
        FileError, match=r"enrollments\.csv cannot be read \(.*\); copy it again, or pack the zip anew\."
    ):
        digest(path)


def test_a_damaged_zip_is_refused_when_its_content_is_summed_up(tmp_path: Path) -> None:
    path = tmp_path / "export.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("enrollments.csv", ENROLLMENTS)
    path.write_bytes(path.read_bytes().replace(b"student", b"studemt"))
    with pytest.raises(FileError, match=r"enrollments\.csv cannot be read \(Bad CRC-32"):
        digest(path)


@pytest.mark.parametrize(
    "name", ["2026-enrollments-2", "school_enrollments", "2026 spring enrollments", "StudentEnrolment", "all users"]
)
def test_of_several_files_one_with_a_known_name_is_not_left_out(folder: Callable[..., Path], name: str) -> None:
    with pytest.raises(FileError, match=rf"{name}\.csv, line 1: this header is not known"):
        parts(folder(**{"1": ENROLLMENTS, name: "course_id;user_id;role;status\n"}))


def test_a_report_of_an_import_is_no_file_to_import(folder: Callable[..., Path]) -> None:
    path = folder(enrollments=ENROLLMENTS, report=",".join(COLUMNS) + "\n")
    assert parts(path).left_out == ("report.csv",)
    with pytest.raises(FileError, match="this header is not known; it has file, line, student, course"):
        parts(path / "report.csv")


def test_other_files_of_the_formats_are_left_out(folder: Callable[..., Path]) -> None:
    assert parts(folder(enrollments=ENROLLMENTS, **dict.fromkeys(OTHERS, "a,b\n"))).left_out == tuple(
        f"{name}.csv" for name in sorted(OTHERS)
    )


@pytest.mark.parametrize("mode", ["bulk", "delta"])
def test_a_file_that_the_manifest_says_is_there_must_be(folder: Callable[..., Path], mode: str) -> None:
    users = "sourcedId,givenName,familyName\nu,A,B\n"
    path = folder(users=users, manifest=f"propertyName,value\nfile.users,bulk\nfile.enrollments,{mode}\n")
    with pytest.raises(FileError, match=f"says file.enrollments,{mode}, and there is no enrollments.csv; export"):
        parts(path)


@pytest.mark.parametrize("name", ["Users.xlsx", "users.csv.gz", "users.csv.part"])
def test_a_file_that_is_there_as_no_csv_is_not_passed_over(
    folder: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    path = folder(enrollments=ENROLLMENTS)
    for other in ("enrollments.csv.md5", "manifest.xml"):
        (path / other).touch()
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as file:
        file.writestr("export/enrollments.csv", ENROLLMENTS)
        file.writestr(f"export/{name}", "x")
    assert len(parts(path).files) == 1
    (path / name).touch()
    for there in (path, tmp_path / "export.zip"):
        with pytest.raises(FileError, match=f"{name} is no CSV file, and nothing of it would be read; export it as"):
            parts(there)


def test_a_list_of_courses_that_is_not_there_loses_no_enrollment(folder: Callable[..., Path]) -> None:
    said = "propertyName,value\nfile.courses,bulk\nfile.enrollments,bulk\n"
    assert len(parts(folder(enrollments=ONEROSTER, manifest=said)).files) == 1


def test_a_name_that_is_no_utf8_is_shown_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"Jos\xe9.csv")
    path.write_text(ENROLLMENTS)
    with opened(path) as (files, _):
        assert [file.name for file in files] == ["Jos\N{REPLACEMENT CHARACTER}.csv"]


@pytest.mark.parametrize("name", ["Users.XLSX", "users.xls"])
def test_a_workbook_is_to_be_exported(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(FileError, match="It is a workbook of a spreadsheet: export each sheet of it as CSV"):
        parts(path)


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="There is no CSV file in"):
        parts(tmp_path)


def test_the_command_line_offers_every_format() -> None:
    assert set(importing._FORMATS) == {format_.NAME for format_ in FORMATS}


def test_what_is_left_out_is_kept_and_changes_no_command(folder: Callable[..., Path]) -> None:
    path = folder(enrollments=ENROLLMENTS)
    request, now = ImportRequest(source="x"), datetime.now(UTC)
    alone = request.options(parts(path))
    more = request.options(parts(folder(terms="a,b\n")))
    assert (more.pop("left_out"), more) == (["terms.csv"], alone)
    assert namespaces("d", "x", alone, now) == namespaces("d", "x", more | {"left_out": ["terms.csv"]}, now)
