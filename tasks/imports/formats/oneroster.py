"""OneRoster 1.1 and 1.2 CSV, as 1EdTech's CSV binding has them. Pure.

In a `bulk` file status and dateLastModified are blank, and the file is the full set; in a `delta` file both are said.
An `endDate` is exclusive: the student is no longer enrolled on that day. A `beginDate` that is yet to come is
waited for, until midnight UTC. The binding's times are in UTC, so one without an offset is, too.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import Final, Literal, NamedTuple

from enrollment.commands import parse_time
from tasks.imports.formats.rows import (
    CatalogRow,
    EnrollmentRow,
    FileError,
    Reading,
    Sheet,
    ignored,
    rejected,
    short,
    unknown_role,
)

NAME: Final = "oneroster"
EXPECTED: Final = "enrollments.csv: classSourcedId, userSourcedId, role, status, dateLastModified"
_PARTS: Final = ("users", "roles", "courses", "classes", "enrollments")
_OTHERS: Final = frozenset(
    {  # of 1.1 and 1.2, of users and of enrollments; more roles begin with `ext:`
        *("administrator", "aide", "counselor", "districtadministrator", "guardian", "parent", "principal", "proctor"),
        *("relative", "siteadministrator", "systemadministrator", "teacher"),
    }
)
_DAY: Final = len("2026-01-31")
_MODES: Final = ("bulk", "delta", "absent")


def part_of(columns: frozenset[str]) -> str | None:
    """Tell which of OneRoster's files has these columns."""
    if columns >= {"propertyname", "value"}:
        return "manifest"
    if columns >= {"classsourcedid", "usersourcedid", "role"}:
        return "enrollments"
    if columns >= {"sourcedid", "givenname", "familyname"}:
        return "users"
    if columns >= {"usersourcedid", "role", "roletype"}:
        return "roles"
    if columns >= {"sourcedid", "title", "coursesourcedid"}:
        return "classes"
    return "courses" if columns >= {"sourcedid", "title", "coursecode"} else None


def modes(sheet: Sheet) -> dict[str, str]:
    """Read a manifest: what each file that we read is (bulk, delta, absent), by its name without `.csv`.

    Raises FileError.
    """
    name, value = sheet.column("propertyName"), sheet.column("value")
    found: dict[str, str] = {}
    for record in sheet.records():
        if isinstance(record, EnrollmentRow):
            raise FileError(f"{sheet.name}, line {record.line}: {record.message}")
        line, values = record
        prefix, _, part = values[name].strip().partition(".")
        if prefix == "file" and part in _PARTS:
            mode = values[value].strip().lower()
            if mode not in _MODES:
                raise FileError(
                    f"{sheet.name}, line {line}: file.{part} is {short(mode)}, and must be one of bulk, delta, absent."
                )
            found[part] = mode
    return found


def read(sheet: Sheet, part: str, reading: Reading) -> Iterator[EnrollmentRow | CatalogRow]:
    """Give the rows of a file."""
    match part:
        case "users":
            return _users(sheet)
        case "roles":
            return _roles(sheet, reading.other_roles)
        case "courses":
            return _courses(sheet) if reading.course_is == "course" else iter(())
        case "classes":
            return _classes(sheet, reading.course_is)
        case "enrollments":
            return _enrollments(sheet, reading)
        case _:
            return iter(())


def _users(sheet: Sheet) -> Iterator[EnrollmentRow | CatalogRow]:
    at = [sheet.column(name) for name in ("sourcedId", "status", "role", "givenName", "familyName")]
    for record in sheet.records():
        if isinstance(record, EnrollmentRow):
            yield record
            continue
        line, values = record
        user, status, role, given, family = (values[index].strip() for index in at)
        if not user:
            yield rejected(line, "missing_value", "The sourcedId is empty.")
        elif status.lower() == "tobedeleted":
            yield CatalogRow(line, "other", user, code="deleted")
        else:
            kind: Literal["student", "other"] = "student" if role.lower() in ("", "student") else "other"
            yield CatalogRow(line, kind, user, title=f"{given} {family}".strip())  # 1.2 has a file of roles


def _roles(sheet: Sheet, others: frozenset[str]) -> Iterator[EnrollmentRow | CatalogRow]:
    at = [sheet.column(name) for name in ("userSourcedId", "role", "status")]
    for record in sheet.records():
        if isinstance(record, EnrollmentRow):
            yield record
            continue
        user, role, status = (record[1][index].strip() for index in at)
        if role.lower() == "student" and status.lower() != "tobedeleted":
            yield CatalogRow(record[0], "role", user)
        elif role.lower() not in {"student", *_OTHERS, *others} and not role.lower().startswith("ext:"):
            yield unknown_role(record[0], role, student=user)


def _courses(sheet: Sheet) -> Iterator[EnrollmentRow | CatalogRow]:
    at = [sheet.column(name) for name in ("sourcedId", "status", "courseCode", "title")]
    for record in sheet.records():
        if isinstance(record, EnrollmentRow):
            yield record
            continue
        course, status, code, title = (record[1][index].strip() for index in at)
        if not course:
            yield rejected(record[0], "missing_value", "The sourcedId is empty.")
        elif status.lower() == "tobedeleted":
            yield CatalogRow(record[0], "gone_course", course)
        else:
            yield CatalogRow(record[0], "course", course, code=code, title=title)


def _classes(sheet: Sheet, course_is: str) -> Iterator[EnrollmentRow | CatalogRow]:
    at = [sheet.column(name) for name in ("sourcedId", "status", "courseSourcedId", "classCode", "title")]
    for record in sheet.records():
        if isinstance(record, EnrollmentRow):
            yield record
            continue
        class_, status, course, code, title = (record[1][index].strip() for index in at)
        if not class_:
            yield rejected(record[0], "missing_value", "The sourcedId is empty.")
        elif course_is == "course" and not course:
            yield rejected(record[0], "missing_value", "The courseSourcedId is empty.")
        elif course_is == "course":
            yield CatalogRow(record[0], "section", class_, parent=course)
            if status.lower() == "tobedeleted":
                yield CatalogRow(record[0], "gone_section", class_)
        elif status.lower() == "tobedeleted":
            yield CatalogRow(record[0], "gone_course", class_)
        else:
            yield CatalogRow(record[0], "course", class_, code=code, title=title)


def _enrollments(sheet: Sheet, reading: Reading) -> Iterator[EnrollmentRow | CatalogRow]:
    names = ("sourcedId", "classSourcedId", "userSourcedId", "role")
    at = [sheet.column(name) for name in (*names, "status", "dateLastModified", "beginDate", "endDate")]
    mode, by_course = reading.modes.get("enrollments", ""), reading.course_is == "course"
    for record in sheet.records():
        if isinstance(record, EnrollmentRow):
            yield record
            continue
        line, values = record
        own, class_, user, role, status, *said = [values[index].strip() for index in at]
        who = {"student": user, "section" if by_course else "course": class_}
        if role.lower() in _OTHERS or role.lower() in reading.other_roles:
            yield ignored(line, "not_student", f"The role is {short(role)}.", **who)
        elif role.lower().startswith("ext:"):
            yield ignored(line, "other_role", f"The role is {short(role)}.", **who)
        elif role.lower() != "student" and role:
            yield unknown_role(line, role, **who)
        elif not (class_ and user and role):
            empty = "classSourcedId" if not class_ else "userSourcedId" if not user else "role"
            yield rejected(line, "missing_value", f"The {empty} is empty.", **who)
        else:
            try:
                asked = EnrollmentRow(line, user, *(("", class_) if by_course else (class_, "")), own_key=own)
                yield _decide(asked, mode, _Said(status.lower(), *said), reading)
            except _Wrong as wrong:
                yield rejected(line, wrong.code, wrong.message, **who)


class _Said(NamedTuple):
    """What a row says of when."""

    status: str
    modified: str
    begin: str
    end: str


class _Wrong(Exception):
    """A value of a row cannot be read."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def _decide(asked: EnrollmentRow, mode: str, said: _Said, reading: Reading) -> EnrollmentRow:
    status = said.status
    if status not in ("active", "tobedeleted") and (status or mode == "delta"):
        raise _Wrong("unknown_status", f"The status {short(status)} is neither active nor tobedeleted.")
    issued_at = None if mode == "bulk" else _time(said.modified, required=mode == "delta")
    begins, ends = _date("beginDate", said.begin), _date("endDate", said.end)
    if status == "tobedeleted":
        return asked._replace(action="unenroll", issued_at=issued_at)
    if ends is not None and ends <= reading.today:
        # Later than the row that enrolled, although nobody has touched that row since.
        end, decided = datetime.combine(ends, time(), UTC), issued_at or reading.issued_at
        if decided is not None and decided < end:
            issued_at = end
        return asked._replace(action="unenroll", issued_at=issued_at)
    if begins is not None and begins > reading.today:
        asked = asked._replace(effective_at=datetime.combine(begins, time(), UTC))
    return asked._replace(action="enroll", issued_at=issued_at)


def _time(text: str, *, required: bool) -> datetime | None:
    if not required and len(text) <= _DAY:  # a day alone would leave the order within it to chance
        return None
    try:
        said = datetime.fromisoformat(text if len(text) > _DAY else "")
        return parse_time(said if said.tzinfo else said.replace(tzinfo=UTC))
    except ValueError:
        hint = "a delta file needs a time such as 2026-01-31T09:30:00.000Z"
        raise _Wrong("invalid_time", f"The dateLastModified {short(text)} is not a time; {hint}.") from None


def _date(name: str, text: str) -> date | None:
    if not text:
        return None
    try:
        return date.fromisoformat(text[:10])
    except ValueError:
        raise _Wrong("invalid_time", f"The {name} {short(text)} is not a date such as 2026-01-31.") from None
