"""Canvas SIS CSV: users, courses, sections, xlists, enrollments, as Canvas documents them ("SIS Import Format"). Pure.

Roles and statuses are in any case, and any role that begins with `student` is a student's, as Canvas has it.
"""

from collections.abc import Iterator
from typing import Final, cast

from tasks.imports.formats.rows import (
    CROSS_LISTED,
    Action,
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

NAME: Final = "canvas"
EXPECTED: Final = "enrollments.csv: course_id or section_id, user_id or user_integration_id, role, status"
STATUSES: Final = {
    "active": "enroll",
    "deleted": "unenroll",
    "deleted_last_completed": "unenroll",
    "completed": "unenroll",
    "inactive": "unenroll",
}
MAPPED: Final = ("completed", "inactive")  # the statuses that `--map` may give another meaning
_OTHERS: Final = frozenset({"teacher", "ta", "observer", "designer"})  # more of a school's own: `--other-role`
_STUDENTS: Final = ("", "student", "student_other")  # the declared types of users
_EXISTING: Final = frozenset({"existing_user_id", "existing_integration_id", "existing_canvas_user_id"})
_NAMES: Final = frozenset({"login_id", "full_name", "first_name", "sortable_name", "short_name"})


def part_of(columns: frozenset[str]) -> str | None:
    """Tell which of Canvas's files has these columns."""
    if columns & {"user_id", "user_integration_id"}:
        if columns & {"course_id", "section_id"}:
            return "enrollments" if "status" in columns and columns & {"role", "role_id"} else None
        is_logins = bool(columns & _EXISTING)  # more ids of users who are in users.csv
        return "users" if "user_id" in columns and columns & _NAMES and not is_logins else None
    if "role" in columns:  # of enrollments, and who is enrolled is not there
        return None
    if columns >= {"section_id", "xlist_course_id"}:
        return "xlists"
    if columns >= {"section_id", "course_id"}:
        return "sections"
    return "courses" if columns >= {"course_id", "short_name"} else None


def read(sheet: Sheet, part: str, reading: Reading) -> Iterator[EnrollmentRow | CatalogRow]:
    """Give the rows of a file."""
    match part:
        case "users":
            return _users(sheet)
        case "courses":
            return _courses(sheet)
        case "sections":
            return _sections(sheet)
        case "xlists":
            return _xlists(sheet)
        case _:
            return _enrollments(sheet, {**STATUSES, **reading.statuses}, _OTHERS | reading.other_roles)


def _users(sheet: Sheet) -> Iterator[EnrollmentRow | CatalogRow]:
    ids = [sheet.column(name) for name in ("user_id", "integration_id", "status", "declared_user_type")]
    names = [sheet.column(name) for name in ("full_name", "first_name", "last_name", "short_name", "sortable_name")]
    for record in sheet.records():
        if isinstance(record, EnrollmentRow):
            yield record
            continue
        line, values = record
        user, other, status, kind = (values[index].strip() for index in ids)
        if not user:
            yield rejected(line, "missing_value", "The user_id is empty.")
        else:
            full, first, last, short, sortable = (values[index].strip() for index in names)
            title = full or f"{first} {last}".strip() or short or sortable
            is_deleted = status.lower() == "deleted"
            is_student = not is_deleted and kind.lower() in _STUDENTS
            yield CatalogRow(
                *(line, "student" if is_student else "other", user),
                alias=other or None,
                code="deleted" if is_deleted else None,
                title=title,
            )


def _courses(sheet: Sheet) -> Iterator[EnrollmentRow | CatalogRow]:
    course, short, long, state = (sheet.column(n) for n in ("course_id", "short_name", "long_name", "status"))
    for record in sheet.records():
        if isinstance(record, EnrollmentRow):
            yield record
            continue
        line, values = record
        if not values[course].strip():
            yield rejected(line, "missing_value", "The course_id is empty.")
        elif values[state].strip().lower() == "deleted":
            yield CatalogRow(line, "gone_course", values[course].strip())
        else:
            yield CatalogRow(
                line, "course", values[course].strip(), code=values[short].strip(), title=values[long].strip()
            )


def _sections(sheet: Sheet) -> Iterator[EnrollmentRow | CatalogRow]:
    section, course, state = (sheet.column(name) for name in ("section_id", "course_id", "status"))
    for record in sheet.records():
        if isinstance(record, EnrollmentRow):
            yield record
            continue
        line, values = record
        if values[section].strip() and values[course].strip():
            yield CatalogRow(line, "section", values[section].strip(), parent=values[course].strip())
            if values[state].strip().lower() == "deleted":
                yield CatalogRow(line, "gone_section", values[section].strip())
        else:
            yield rejected(line, "missing_value", "The section_id or the course_id is empty.")


def _xlists(sheet: Sheet) -> Iterator[EnrollmentRow | CatalogRow]:
    section, course, state = (sheet.column(name) for name in ("section_id", "xlist_course_id", "status"))
    for record in sheet.records():
        if isinstance(record, EnrollmentRow):
            yield record
            continue
        line, values = record
        if not (values[section].strip() and values[course].strip()):
            yield rejected(line, "missing_value", "The section_id or the xlist_course_id is empty.")
        elif values[state].strip().lower() != "deleted":  # else the section is back in its own course
            yield CatalogRow(line, "section", values[section].strip(), parent=values[course].strip(), code=CROSS_LISTED)


def _enrollments(
    sheet: Sheet, statuses: dict[str, str], others: frozenset[str]
) -> Iterator[EnrollmentRow | CatalogRow]:
    at = [sheet.column(n) for n in ("course_id", "section_id", "user_id", "user_integration_id", "role", "status")]
    course_at, section_at, user_at, other_at, role_at, status_at = at
    if "role" not in sheet.columns:
        raise FileError(f"{sheet.name}, line 1: the column role_id is not read; export the column role as well.")
    number_at, base_at = sheet.column("role_id"), sheet.column("base_role_type")
    for record in sheet.records():
        if isinstance(record, EnrollmentRow):
            yield record
            continue
        line, values = record
        course, section = values[course_at].strip(), values[section_at].strip()
        user, other = values[user_at].strip(), values[other_at].strip()
        role, status = values[role_at].strip(), values[status_at].strip()
        student, action = user or other, statuses.get(status.lower())
        own = role.lower().removesuffix("enrollment")  # another role is another enrollment of the same section
        kind = values[base_at].strip().lower().removesuffix("enrollment") or own  # of a role of a school's own
        if action is None:  # whatever the role: values that stand in the wrong columns show in it
            known = ", ".join(sorted(statuses))
            message = f"The status {short(status)} is none of {known}."
            yield rejected(line, "unknown_status", message, student=student, course=course, section=section)
        elif role.lower() in others or kind in others:
            message = f"The role is {short(role)}."
            yield ignored(line, "not_student", message, student=student, course=course, section=section)
        elif role and (not kind.startswith("student") or '"' in role or not role.isprintable()):
            yield unknown_role(line, role, student=student, course=course, section=section)
        elif not (student and role and (course or section)):
            empty = "user_id" if not student else "role" if not role else "course_id and the section_id"
            message = f"The {empty} is empty."
            if empty == "role" and values[number_at].strip():
                message = f"{message} The role_id is not read; export the column role as well."
            yield rejected(line, "missing_value", message, student=student, course=course, section=section)
        elif action == "ignore":
            yield ignored(
                line, "left_out", f"The status is {short(status)}.", student=student, course=course, section=section
            )
        else:
            yield EnrollmentRow(line, student, course, section, cast(Action, action), by_alias=not user, own_key=own)
