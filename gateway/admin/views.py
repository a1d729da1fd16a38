"""What pages show, put together from the query module."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from enrollment.commands import format_time, parse_time, parse_uuid
from enrollment.errors import UnknownCommand, UnknownCourse, UnknownStudent
from enrollment.fold import Record
from gateway.dependencies import Gateway
from models import import_rows, queries
from models.queries import CourseRow, StudentRow, search
from models.queries.search import Place

CHOICES: Final = 50  # courses of the catalog offered at once
COMMANDS: Final = 20  # of a student's, at once
_NAMED: Final = 30  # courses of one command that are looked up by name


@dataclass(frozen=True, slots=True)
class StudentCommands:
    """Commands, the courses they name, and what to ask for the next ones with."""

    records: list[Record]
    known: dict[int, CourseRow]
    older: str | None


@dataclass(frozen=True, slots=True)
class Choices:
    """Courses that may be added: those ticked already, and those of the catalog that answer the search."""

    chosen: list[CourseRow]
    choices: list[CourseRow]
    more_choices: bool


def courses_named(connection: Connection, records: Iterable[Record]) -> dict[int, CourseRow]:
    """Return the courses that commands name, as far as a page shows them."""
    ids: set[int] = set()
    for record in records:
        for effect in record.effects:
            ids.update(effect[:_NAMED])
        ids.update((record.course_ids or ())[:_NAMED])
    return search.courses_by_id(connection, ids)


def student_commands(connection: Connection, student_id: int, before: str = "") -> StudentCommands:
    """Return commands about a student, the newest first."""
    records, older = search.commands_of(connection, student_id, before=_place(before), limit=COMMANDS)
    known = courses_named(connection, records)
    return StudentCommands(records, known, None if older is None else f"{format_time(older.time)}_{older.command_id}")


def choices(connection: Connection, enrolled: Iterable[int], query: str, added: Iterable[int]) -> Choices:
    """Return the courses that a student may be enrolled in besides those of now."""
    taken = set(enrolled)
    chosen = sorted(row for id_, row in search.courses_by_id(connection, added).items() if id_ not in taken)
    taken.update(row.id for row in chosen)
    limit = len(taken) + CHOICES
    if query.strip():
        page = search.find_courses(connection, query, limit=limit)
    else:
        page = queries.courses(connection, limit=limit)
    free = [row for row in page.items if row.id not in taken]
    return Choices(chosen, free[:CHOICES], len(free) > CHOICES or page.after is not None)


def student_page(connection: Connection, student_id: int, query: str = "") -> dict[str, Any]:
    """Return what the page of a student shows. Raises UnknownStudent."""
    student: StudentRow = queries.student(connection, student_id)
    enrolled = queries.courses_of(connection, student_id)
    offered = choices(connection, (course.id for course in enrolled), query, ())
    happened = student_commands(connection, student_id)
    return {
        "student": student,
        "enrolled": enrolled,
        "q": query,
        "chosen": offered.chosen,
        "choices": offered.choices,
        "more_choices": offered.more_choices,
        "records": happened.records,
        "older": happened.older,
        "known": happened.known,
        "waiting_rows": import_rows.waiting(connection, student.sis_id),
        "ids": "",
        "ids_wrong": "",
        "oob": False,
        "ids_oob": False,
        "said": "",
        "is_search": False,
    }


def history_page(connection: Connection, student_id: int, course_id: int) -> dict[str, Any]:
    """Return what the history of a pair shows, also of ids that were deleted. Raises UnknownStudent, UnknownCourse."""
    values: dict[str, Any] = {
        "entries": queries.history(connection, student_id, course_id),
        "student": StudentRow(student_id, None, ""),
        "course": CourseRow(course_id, None, "", ""),
        "is_enrolled": False,
        "gone": "",
    }
    for what, read, id_ in (("student", queries.student, student_id), ("course", queries.course, course_id)):
        try:
            values[what] = read(connection, id_)
        except (UnknownStudent, UnknownCourse):
            values["gone"] = what
    if not values["gone"]:
        values["is_enrolled"] = queries.is_enrolled(connection, student_id, course_id)
    return values


async def outcome(gateway: Gateway, command_id: UUID, seconds: float) -> Record | None:
    """Return what came of a command, as soon as it is known; None if it is not within `seconds`."""
    with gateway.listener.expecting([command_id]) as expected:
        record = await _stored(gateway, command_id)
        if record is not None or gateway.listener.closed or seconds <= 0:
            return record
        if gateway.listener.live:
            await expected.wait(seconds)
        else:  # the stream is away, and the table is not
            await asyncio.sleep(min(1.0, seconds))
    return await _stored(gateway, command_id)


async def _stored(gateway: Gateway, command_id: UUID) -> Record | None:
    try:
        return await gateway.read.lookup(queries.command, command_id)
    except UnknownCommand:
        return None


def _place(query: str) -> Place | None:
    time, _, command_id = query.partition("_")
    try:
        moment: datetime = parse_time(time)
        return Place(moment, parse_uuid(command_id))
    except ValueError:
        return None
