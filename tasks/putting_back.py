"""Commands that the database lost, put back as their events say. Nothing is told of them: the world knows."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection

from enrollment.commands import Command, Unenroll
from enrollment.events import Event
from enrollment.fold import fold
from enrollment.names import TASKS
from enrollment.restoring import command_of, is_whole, record_of
from enrollment.state import BEFORE_ALL
from models import awaited, deferred, ledger, reconciling
from models.deferred import Deferred
from tasks.deferring import to_be_kept, wait_of
from tasks.messages import Message, Unit

_END: Final = datetime.max.replace(tzinfo=UTC)


class Lost(NamedTuple):
    """Events of commands that the database does not know so, and what some of them need that is not in the catalog."""

    events: tuple[Event, ...]
    held: frozenset[UUID]  # those that cannot be put back
    students: frozenset[int]  # which these need
    courses: frozenset[int]


def lost_of(connection: Connection, events: Sequence[Event]) -> Lost:
    """Return which of these events are of commands that the database does not know, or knows as waiting only."""
    known = reconciling.outcomes(connection, {event.id for event in events})
    chosen: dict[UUID, Event] = {}
    for event in events:
        outcome = known.get(event.id)
        is_news = outcome is None or (outcome == "waiting" and not event.is_waiting)
        if is_news and is_whole(event):
            before = chosen.get(event.id)
            if before is None or before.is_waiting:
                chosen[event.id] = event
    return Lost(tuple(chosen.values()), *_held(connection, chosen.values()))


def put_back(connection: Connection, lost: Lost) -> int:
    """Write the records and the rows that follow from them; return how many there were.

    The caller keeps everybody else from writing. What is newer than these commands stays.
    """
    events = [event for event in lost.events if event.id not in lost.held]
    if not events:
        return 0
    ids = [event.id for event in events]
    deferred.take(connection, {kept.id for kept in awaited.lock(connection, ids)})
    ledger.take_waiting(connection, ids)
    _write_rows(connection, [command for event in events if (command := _applied(event)) is not None])
    deferred.put_anew(connection, [kept for event in events if (kept := _kept(event)) is not None])
    reconciling.put_records(connection, map(record_of, events))
    return len(events)


def _held(connection: Connection, events: Iterable[Event]) -> tuple[frozenset[UUID], frozenset[int], frozenset[int]]:
    """Return what enrolls students that do not exist, or in courses that do not: foreign keys refuse such rows."""
    enrolling = [it for event in events if (it := _applied(event)) is not None and not isinstance(it, Unenroll)]
    students, courses = reconciling.missing(
        connection,
        {command.student_id for command in enrolling if command.course_ids},
        {course_id for command in enrolling for course_id in command.course_ids},
    )
    held = {
        command.command_id
        for command in enrolling
        if command.course_ids and (command.student_id in students or not courses.isdisjoint(command.course_ids))
    }
    return frozenset(held), frozenset(students), frozenset(courses)


def _write_rows(connection: Connection, commands: Sequence[Command]) -> None:
    """Decide the pairs of commands that were applied, by stamp; whatever else was a reason to reject them was not."""
    students = {command.student_id for command in commands}
    state, _ = ledger.read_state(connection, students, commands)(students)
    state.courses = {course_id for command in commands for course_id in command.course_ids}
    state.processed, state.closed, state.oldest = {}, set(), BEFORE_ALL.issued_at
    times = [command.issued_at or _END for command in commands]
    ledger.write_changes(connection, fold(state, commands, _END, first_seen=times).changes)


def _applied(event: Event) -> Command | None:
    return command_of(event) if event.type == "enrollment.applied.v1" else None


def _kept(event: Event) -> Deferred | None:
    """Return what is kept of a command that waits."""
    command, waiting = command_of(event), record_of(event).waiting
    if command is None or waiting is None:
        return None
    message = Message(TASKS[command.kind], str(event.id), str(event.id))
    return to_be_kept(Unit(message, 0, 0, command), wait_of(waiting), event.time, waiting)
