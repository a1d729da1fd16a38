"""Result events: one per command, a CloudEvents 1.0 JSON object, and a pure function of the command's record."""

import json
from typing import Annotated, Any, Final, Literal, cast
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from enrollment.commands import Kind, Time, format_time
from enrollment.errors import Rejection
from enrollment.fold import Record
from enrollment.traces import attributes_of
from enrollment.waiting import WaitingFor

SOURCE: Final = "/enrollment-worker"
EventType = Literal[
    "enrollment.applied.v1", "enrollment.rejected.v1", "enrollment.waiting.v1", "enrollment.withdrawn.v1"
]
_quote: Final = json.JSONEncoder(ensure_ascii=False).encode


def _ids(description: str) -> Any:
    return Field(description=f"{description} Course ids, ascending.")


def _optional(*names: str) -> Any:
    def amend(schema: dict[str, Any]) -> None:
        schema["required"] = [name for name in schema["required"] if name not in names]

    return amend


_OPTIONAL: Final = ("subject", "traceparent", "tracestate")  # left out where there is none
_MORE: Final = ("waiting_for", "until", "target")  # what most events do not say


class EventData(BaseModel):
    """What was asked, and what came of it. What an invalid command did not say is null."""

    # A reader does not stumble over a field of a later version.
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_serialization_defaults_required=True,
        json_schema_extra=_optional(*_MORE),
    )

    command_id: Annotated[UUID, Field(description="With `issued_at`, the command's stamp.")]
    command: Annotated[Kind | None, Field(description="What was asked for.")]
    student_id: Annotated[int | None, Field(description="The student.")]
    course_ids: Annotated[tuple[int, ...] | None, Field(description="The courses that the command named.")]
    issued_at: Annotated[
        Time | None, Field(description="When the producer decided; where it did not say, when the worker first saw it.")
    ]
    source: Annotated[str | None, Field(description="Who sent the command.")]
    enrolled: Annotated[tuple[int, ...], _ids("What the student was enrolled in.")] = ()
    unenrolled: Annotated[tuple[int, ...], _ids("What was taken from the student.")] = ()
    unchanged: Annotated[tuple[int, ...], _ids("What already was as the command wants it.")] = ()
    superseded: Annotated[tuple[int, ...], _ids("What belongs to a command with a higher stamp.")] = ()
    errors: Annotated[tuple[Rejection, ...], Field(description="Why it was rejected; empty where it was not.")] = ()
    waiting_for: Annotated[
        tuple[WaitingFor, ...], Field(description="Of one that waits, and there alone: what for, all of it.")
    ] = ()
    until: Annotated[Time | None, Field(description="Of one that waits: until when, at the longest.")] = None
    target: Annotated[UUID | None, Field(description="Of a withdraw: the command that it is about.")] = None


class Event(BaseModel):
    """A result event (CloudEvents 1.0, JSON format): `id` is the command's id.

    One per command is final. A command that has to wait has one before that, which says so.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_serialization_defaults_required=True,
        json_schema_extra=_optional(*_OPTIONAL),
    )

    specversion: Annotated[Literal["1.0"], Field(description="The version of CloudEvents.")] = "1.0"
    id: Annotated[UUID, Field(description="The command's id: one event of a type for each.")]
    source: Annotated[str, Field(description="Who publishes the event.")] = SOURCE
    type: Annotated[EventType, Field(description="The outcome of the command; `waiting` is followed by another.")]
    subject: Annotated[str | None, Field(description="`students/<id>`; left out where no student was named.")] = None
    time: Annotated[Time, Field(description="When the command was committed.")]
    datacontenttype: Annotated[Literal["application/json"], Field(description="What `data` is.")] = "application/json"
    traceparent: Annotated[
        str | None, Field(description="The trace of the command (CloudEvents' distributed tracing); left out without.")
    ] = None
    tracestate: Annotated[str | None, Field(description="Of that trace, where its sender gave one.")] = None
    data: EventData

    @property
    def is_waiting(self) -> bool:
        """Whether it only says that the command waits: a final event follows."""
        return self.type == "enrollment.waiting.v1"

    def to_json(self) -> str:
        """Return the event as it stands on the stream."""
        unsaid = {name: True for name in _OPTIONAL if getattr(self, name) is None}
        return self.model_dump_json(
            exclude={"data": {name for name in _MORE if not getattr(self.data, name)}, **unsaid}
        )


def event_json(record: Record) -> str:
    """Return `event_of(record).to_json()`: the same text, for the worker, several times faster.

    Everything but the texts is a number, an id or a time, whose form needs no escapes.
    """
    id_, student_id, effects = str(record.command_id), record.student_id, record.effects
    subject = "" if student_id is None else f'"subject":"students/{student_id}",'
    traced = attributes_of(record.trace).items() if record.trace else ()
    trace = "".join([f'"{name}":{_quote(value)},' for name, value in traced])
    errors = ",".join([error.model_dump_json() for error in record.errors]) if record.errors else ""
    more = "" if record.waiting is None else f",{record.waiting.model_dump_json()[1:-1]}"
    if record.target is not None:
        more += f',"target":"{record.target}"'
    return (
        f'{{"specversion":"1.0","id":"{id_}","source":"{SOURCE}","type":"enrollment.{record.outcome}.v1",{subject}'
        f'"time":"{format_time(record.processed_at)}","datacontenttype":"application/json",{trace}'
        f'"data":{{"command_id":"{id_}","command":{_text(record.command)},'
        f'"student_id":{"null" if student_id is None else student_id},"course_ids":{_numbers(record.course_ids)},'
        f'"issued_at":{_text(None if record.issued_at is None else format_time(record.issued_at))},'
        f'"source":{_text(record.source)},"enrolled":{_numbers(effects.enrolled)},'
        f'"unenrolled":{_numbers(effects.unenrolled)},"unchanged":{_numbers(effects.unchanged)},'
        f'"superseded":{_numbers(effects.superseded)},"errors":[{errors}]{more}}}}}'
    )


def _text(value: str | None) -> str:
    return "null" if value is None else _quote(value)


def _numbers(values: tuple[int, ...] | None) -> str:
    return "null" if values is None else f"[{','.join([str(value) for value in values])}]" if values else "[]"


def event_of(record: Record) -> Event:
    """Return the event that tells the world what came of a command."""
    trace = attributes_of(record.trace)
    return Event(
        id=record.command_id,
        type=cast("EventType", f"enrollment.{record.outcome}.v1"),
        subject=None if record.student_id is None else f"students/{record.student_id}",
        time=record.processed_at,
        traceparent=trace.get("traceparent"),
        tracestate=trace.get("tracestate"),
        data=EventData(
            command_id=record.command_id,
            command=record.command,
            student_id=record.student_id,
            course_ids=record.course_ids,
            issued_at=record.issued_at,
            source=record.source,
            **record.effects._asdict(),
            errors=record.errors,
            waiting_for=record.waiting.waiting_for if record.waiting else (),
            until=record.waiting.until if record.waiting else None,
            target=record.target,
        ),
    )
