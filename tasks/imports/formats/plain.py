"""Plain CSV: `student,course[,action][,issued_at][,effective_at]`. Pure."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final, cast

from enrollment.commands import MAX_ID, parse_time
from tasks.imports.formats.rows import Action, CatalogRow, EnrollmentRow, Reading, Sheet, rejected, short

NAME: Final = "plain"
_DIGITS: Final = 30  # of an id, zeros before it included
EXPECTED: Final = "student, course, and where wanted action (enroll, unenroll), issued_at and effective_at"


def part_of(columns: frozenset[str]) -> str | None:
    """Tell whether these are the columns."""
    is_report = columns >= {"plan", "outcome"}  # of an import: its rows ask for nothing
    return "enrollments" if columns >= {"student", "course"} and not is_report else None


def read(sheet: Sheet, part: str, reading: Reading) -> Iterator[EnrollmentRow | CatalogRow]:  # noqa: ARG001 - there is one part only
    """Give the rows of a file."""
    at = [sheet.column(name) for name in ("student", "course", "action", "issued_at", "effective_at")]
    for record in sheet.records():
        if isinstance(record, EnrollmentRow):
            yield record
            continue
        line, values = record
        student, course, action, *said = [values[index].strip() for index in at]
        wrong = _wrong(student, course, action, by_id=reading.by == "id")
        times: list[datetime | None] = []
        for name, text in zip(("issued_at", "effective_at"), said, strict=True):
            try:
                times.append(parse_time(text) if text else None)
            except ValueError:
                message = f"The {name} {short(text)} is not a time with an offset, such as 2026-01-31T09:30:00Z."
                wrong = wrong or ("invalid_time", message)
        if wrong is not None:
            yield rejected(line, *wrong, student=student, course=course)
        else:
            issued_at, effective_at = times
            asked = EnrollmentRow(line, student, course, action=cast(Action, action.lower() or "enroll"))
            yield asked._replace(issued_at=issued_at, effective_at=effective_at)


def _wrong(student: str, course: str, action: str, *, by_id: bool) -> tuple[str, str] | None:
    for name, value in (("student", student), ("course", course)):
        if not value:
            return "missing_value", f"The {name} is empty."
        if by_id and not (value.isascii() and value.isdecimal() and len(value) <= _DIGITS and 0 < int(value) <= MAX_ID):
            hint = "if it is the id of the student information system, say --by sis_id"
            return "invalid_id", f"The {name} {short(value)} is not an id, which is a whole number; {hint}."
    if action.lower() not in ("", "enroll", "unenroll"):
        return "unknown_action", f"The action {short(action)} is neither enroll nor unenroll."
    return None
