"""How a copy of the enrollments follows the result events: in whatever order and however often they come. Pure: no I/O.

An event says of each course what its command decided and with which stamp; a course belongs to the decision with the
highest stamp. That is all a reader needs. The events of a replace are no exception: the worker has the mark of the
replace, so `unenrolled` names each course that it took, and a command that comes later with an older stamp names as
`superseded` what is not its to decide. A mark matters to a reader in one case: in a copy that began with what the
tables held, an event from before that moment may still come.
"""

from collections.abc import Iterator, MutableMapping
from datetime import UTC
from typing import NamedTuple

from enrollment.commands import Kind
from enrollment.events import Event
from enrollment.state import Pair, Stamp, StudentState


class Decision(NamedTuple):
    """What a command decided of one course of one student."""

    student_id: int
    course_id: int
    enrolled: bool
    stamp: Stamp


def decisions(event: Event) -> Iterator[Decision]:
    """Tell what an event decided: nothing when its command was rejected, and nothing of superseded courses."""
    data = event.data
    if event.type != "enrollment.applied.v1" or data.student_id is None or data.issued_at is None:
        return
    stamp = Stamp(data.issued_at, data.command_id)
    found = [(course_id, True) for course_id in data.enrolled]
    found += [(course_id, False) for course_id in data.unenrolled]
    found += [(course_id, data.command is not Kind.UNENROLL) for course_id in data.unchanged]
    for course_id, enrolled in found:
        yield Decision(data.student_id, course_id, enrolled, stamp)


def newer(decision: Decision, student: StudentState) -> bool:
    """Tell whether a decision is newer than what a copy holds of this student's course."""
    return decision.stamp > student.decided(decision.course_id)


def follow(copy: MutableMapping[int, StudentState], event: Event) -> list[Decision]:
    """Bring a copy (students by id) up to an event; return the decisions that were news to it.

    The stamp of a course that is not enrolled stays in the copy: without it, an older event that comes later would
    enroll the student again.
    """
    news = [it for it in decisions(event) if newer(it, copy.setdefault(it.student_id, StudentState()))]
    for it in news:
        copy[it.student_id].pairs[it.course_id] = Pair(it.enrolled, it.stamp)
    return news


def sortable(stamp: Stamp) -> str:
    """Return a stamp as text that sorts as stamps do, for a copy in a database that compares text by its bytes.

    The times in events do not: they leave out a fraction of zero.
    """
    moment = stamp.issued_at.astimezone(UTC).replace(tzinfo=None)
    return f"{moment.isoformat(timespec='microseconds')}Z {stamp.command_id}"
