"""Why a student is, or is not, in a course: what was said of the pair, told as one paragraph. Pure."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

from enrollment.errors import Rejection
from enrollment.waiting import TIME
from models.queries import CourseRow, HistoryEntry, StudentRow

_DONE: Final = {
    "enrolled": "enrolled them",
    "unenrolled": "took them out",
    "unchanged": "found it so already",
    "superseded": "came to nothing, because a newer command had decided",
}
_VERBS: Final = {"enroll": "to enroll them", "unenroll": "to take them out", "replace": "for exactly its own courses"}

_NAMED: Final = 10  # ids that are named; of more, their number is told


def paragraph(
    student: StudentRow,
    course: CourseRow,
    entries: Sequence[HistoryEntry],
    rows: Sequence[Any],
    waiting: Sequence[Any] = (),
    *,
    is_enrolled: bool,
) -> str:
    """Tell the commands for a pair in order of stamp, with the file and line of those that came from an import.

    At the end come the rows of imports that wait for the catalog.
    """
    whom = f"{student.name or 'The student'} (id {student.id}{_sis(student.sis_id)})"
    where = f"{course.code or course.title or 'the course'} (id {course.id}{_sis(course.sis_id)})"
    told = [f"{whom} is {'' if is_enrolled else 'not '}enrolled in {where}."]
    places = {row.command_id: row for row in rows if row.command_id is not None}
    known = {entry.record.command_id for entry in entries}
    events = [(_time(entry), _entry(entry, places)) for entry in entries]
    events += [(row.issued_at, _row(row)) for row in rows if row.command_id not in known and row.issued_at]
    told += [text for _, text in sorted(events, key=lambda event: event[0])]
    told += map(waits, waiting)
    if not events and waiting:
        told.append("No command has named the two yet.")
    elif not events:
        told.append("No command ever named the two." if not is_enrolled else "The row is older than all commands.")
    elif not any(entry.owns for entry in entries):
        told.append("None of these decides now.")
    return " ".join(told)


def waits(row: Any) -> str:
    """Tell what a row of an import asks that waits for the catalog, and for what."""
    missing = [what for what, is_there in (("student", row.has_student), ("course", row.has_course)) if not is_there]
    there = f"which are there now: the next import sends it, or `enrollment import --apply {row.import_id}`"
    what = f"the {' and the '.join(missing)}, not in the catalog yet" if missing else f"student and course, {there}"
    asked = "enroll the student in" if row.asked == "enroll" else "take the student out of"
    said = (
        f"On {_shown(row.issued_at)} import {row.import_id} ({row.file}, line {row.line}) asked to {asked} {row.course}"
    )
    return f"{said}: that waits, until {_shown(row.until)} at the longest, for {what}."


def _entry(entry: HistoryEntry, places: Mapping[UUID, Any]) -> str:
    record, place = entry.record, places.get(entry.record.command_id)
    origin = f"the source {record.source}" if record.source else "an unnamed source"
    if place is not None:
        origin = f"{_place(place)}, as {record.source},"
    asked = _VERBS.get(record.command or "", "for something that is no valid command")
    when = "On"
    if record.errors:
        did = f"was rejected: {' '.join(map(_reason, record.errors))}".rstrip(".")
    elif record.waiting is not None and [it.code for it in record.waiting.waiting_for] == [TIME]:
        when, did = "For", "waits for its time"
    elif record.waiting is not None:
        did = f"waits, until {_shown(record.waiting.until)} at the longest"
    elif record.outcome == "withdrawn":
        did = "was withdrawn"
    else:
        did = _DONE.get(entry.effect or "", "changed nothing here")
    last = ", and decides now" if entry.owns else ""
    return f"{when} {_shown(_time(entry))} {origin} asked {asked}: that {did}{last}."


def _row(row: Any) -> str:
    asked = {"enroll": _VERBS["enroll"], "unenroll": _VERBS["unenroll"], "drop": "nothing of them"}.get(row.asked)
    did = (row.message or "nothing was sent for it").rstrip(".")
    if asked is None or row.planned in ("ignored", "rejected"):
        return f"On {_shown(row.issued_at)} a row of {_place(row)} was {row.planned}: {did}."
    return f"On {_shown(row.issued_at)} {_place(row)} asked {asked}, not sent: {did}."


def _reason(error: Rejection) -> str:
    many = len(error.ids) > _NAMED
    return f"{error.code}, {len(error.ids):,} ids." if many else error.message


def _place(row: Any) -> str:
    what = f"the undoing of import {row.undo_of}" if row.undo_of else f"import {row.import_id}"
    if row.line is None:
        return f"{what}{'' if row.undo_of else f' of {row.path}'} (in which they are absent)"
    return f"{what} ({row.file}, line {row.line})"


def _time(entry: HistoryEntry) -> datetime:
    return entry.record.issued_at or entry.record.processed_at


def _shown(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _sis(sis_id: str | None) -> str:
    return f", SIS id {sis_id}" if sis_id else ""
