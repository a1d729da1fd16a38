"""From a result event back to what the database had when it told it: the inverse of `enrollment.events`. Pure."""

from datetime import UTC, datetime
from itertools import chain
from typing import Any

from pydantic import ValidationError

from enrollment.commands import MAX_ID, MODELS, Command, Kind, Withdraw
from enrollment.errors import ErrorCode
from enrollment.events import Event, EventData
from enrollment.fold import WITHDRAWN, Effects, Record
from enrollment.parsing import content_hash, hash_without_times
from enrollment.taken import REASONS
from enrollment.waiting import TIME, Waiting

_FIRST, _LAST = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)  # in any other zone there is more


def record_of(event: Event) -> Record:
    """Return the record of a command, of which this is the event."""
    data = event.data
    effects = Effects(data.enrolled, data.unenrolled, data.unchanged, data.superseded)
    return Record(
        command_id=event.id,
        command=data.command,
        student_id=data.student_id,
        course_ids=data.course_ids,
        issued_at=data.issued_at,
        source=data.source,
        outcome=event.type.split(".")[1],  # type: ignore[arg-type]
        effects=effects,
        errors=data.errors,
        processed_at=event.time,
        content_hash=_content(data),
        waiting=Waiting(waiting_for=data.waiting_for, until=data.until) if event.is_waiting and data.until else None,
        target=data.target,
        trace=" ".join(filter(None, (event.traceparent, event.tracestate))) or None,
    )


def command_of(event: Event) -> Command | None:
    """Return a command with the stamp of this one, which asks for the same; None where the event does not say enough.

    Of one that waits it is what has to be kept; whether it waits for students and courses after its time is not told.
    """
    data = event.data
    times: dict[str, Any] = {"issued_at": data.issued_at}
    if event.is_waiting and data.waiting_for:
        by_time = data.waiting_for[0].code == TIME
        times = {"effective_at": data.until} if by_time else {**times, "wait_until": data.until}
    fields = {"student_id": data.student_id, "course_ids": data.course_ids, "source": data.source, **times}
    if data.command is None or data.command not in MODELS or data.issued_at is None:
        return None
    try:
        return MODELS[data.command].model_validate({**fields, "command_id": data.command_id})
    except ValidationError:  # whoever may write to the stream can put anything there
        return None


def is_whole(event: Event) -> bool:
    """Tell whether the event says all that its command needs to be put back, and nothing that no worker says.

    What is written by another hand must not keep everything else from being put back: a database takes no such record.
    """
    if event.id != event.data.command_id or not _is_in_bounds(event):
        return False
    needs_command = event.is_waiting or (event.data.command in MODELS and event.type == "enrollment.applied.v1")
    return not needs_command or command_of(event) is not None


def _is_in_bounds(event: Event) -> bool:
    data = event.data
    ids = chain(data.course_ids or (), data.enrolled, data.unenrolled, data.unchanged, data.superseded)
    times = filter(None, (event.time, data.issued_at, data.until))
    return (
        all(1 <= it <= MAX_ID for it in chain(ids, () if data.student_id is None else (data.student_id,)))
        and all(_FIRST <= it <= _LAST for it in times)
        and "\\u0000" not in event.to_json()
    )


def _content(data: EventData) -> bytes:
    """Return what a repeat is told by. Which times the message said is not known, and of an invalid one nothing is."""
    if data.command is Kind.UNENROLL and data.source in REASONS:
        return b""  # it was no message
    if data.command is Kind.WITHDRAW and data.target is not None:
        return content_hash(Withdraw(command_id=data.command_id, target=data.target, source=data.source))
    invalid = any(error.code is ErrorCode.INVALID_COMMAND for error in data.errors)
    if invalid or data.command is None or data.student_id is None or data.course_ids is None:
        return WITHDRAWN
    return hash_without_times(data.command, data.student_id, data.course_ids, data.source)
