"""The commands as they travel: strict, frozen, and refusing what they do not know."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Final, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    PlainSerializer,
    Strict,
    TypeAdapter,
    WithJsonSchema,
)

MAX_ID: Final = 2**63 - 1  # PostgreSQL's bigint
MAX_COURSES: Final = 1000  # per command; also bounds the time one student's lock is held
MAX_COMMANDS: Final = 1000  # per `apply` message

# RFC 3339, section 5.6, `date-time`: seconds and offset are not optional. A stamp cannot hold a leap second.
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_UUID = re.compile(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{4}\1[0-9a-fA-F]{12}")
_uuid_of: Final[Callable[[str], UUID]] = TypeAdapter(UUID).validator.validate_python  # five times as fast as UUID()


class Kind(StrEnum):
    """What a command asks for."""

    ENROLL = "enroll"
    UNENROLL = "unenroll"
    REPLACE = "replace"
    WITHDRAW = "withdraw"  # of a command that waits


def parse_time(value: object) -> datetime:
    """Read an RFC 3339 time with an offset, as UTC; digits beyond microseconds are cut off.

    Raises ValueError for anything else, a datetime without an offset included.
    """
    if isinstance(value, str) and _RFC3339.fullmatch(value):
        value = datetime.fromisoformat(value.upper())
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("not an RFC 3339 time with an offset")
    try:
        return value.astimezone(UTC)
    except OverflowError as error:  # year 1 or 9999, moved over the edge by its offset
        raise ValueError("not a time between the years 1 and 9999") from error


def parse_uuid(value: object) -> UUID:
    """Read a UUID in its usual text form, with or without hyphens (RFC 9562, section 4). Raises ValueError."""
    if isinstance(value, UUID):
        return value
    if isinstance(value, str) and _UUID.fullmatch(value):
        return _uuid_of(value)
    raise ValueError("not a UUID")


def uuid_or_none(value: object) -> UUID | None:
    """Read a UUID where there may be none."""
    try:
        return parse_uuid(value)
    except ValueError:
        return None


@lru_cache(maxsize=4096)  # the stamp of one command is written several times over
def format_time(value: datetime) -> str:
    """Write a time as it stands in events and messages: RFC 3339, UTC."""
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


# A time in what is told: events, answers over HTTP.
Time = Annotated[
    datetime,
    PlainSerializer(format_time, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}, mode="serialization"),
]


def _without_repeats(course_ids: tuple[int, ...]) -> tuple[int, ...]:
    return course_ids if len(set(course_ids)) == len(course_ids) else tuple(dict.fromkeys(course_ids))


Id = Annotated[int, Field(ge=1, le=MAX_ID)]
# A list on the wire; a tuple in hand, so that a command cannot change. The ids inside stay strict.
# One fault is enough to know: a million of them would take a gigabyte.
_Courses = Annotated[tuple[Id, ...], Strict(strict=False), FailFast()]
SomeCourses = Annotated[_Courses, Field(min_length=1, max_length=MAX_COURSES), AfterValidator(_without_repeats)]
AnyCourses = Annotated[_Courses, Field(max_length=MAX_COURSES), AfterValidator(_without_repeats)]
IssuedAt = Annotated[
    datetime,
    BeforeValidator(parse_time),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
CommandId = Annotated[
    UUID,
    BeforeValidator(parse_uuid),
    WithJsonSchema({"type": "string", "format": "uuid"}),
    Field(description="What makes a command the same when it is sent again: it takes effect once."),
]
Source = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:/-]{1,64}$")]


class _Fields(BaseModel):
    """What every command says."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    student_id: Annotated[Id, Field(description="The student.")]
    course_ids: Annotated[SomeCourses, Field(description="The courses; one named twice counts once.")]
    issued_at: Annotated[
        IssuedAt | None,
        Field(description="When the producer decided. Default: when the worker first saw the command."),
    ] = None
    source: Annotated[Source | None, Field(description="Who sent the command.")] = None
    effective_at: Annotated[
        IssuedAt | None,
        Field(
            description="When the command is to take effect: it is decided then, and ordered among others as if issued "
            "then. Default: the header `eta` of its message; without one, at once."
        ),
    ] = None
    wait_until: Annotated[
        IssuedAt | None,
        Field(
            description="Until when a student or course that does not exist is waited for before the command is "
            "rejected. Default: as the deployment is set, which is not to wait."
        ),
    ] = None


class EnrollArguments(_Fields):
    """`enrollment.enroll.v1`: add these courses to the student's."""


class UnenrollArguments(_Fields):
    """`enrollment.unenroll.v1`: take these courses from the student's."""


class ReplaceArguments(_Fields):
    """`enrollment.replace.v1`: the student's courses are exactly these; an empty list means none."""

    course_ids: Annotated[AnyCourses, Field(description="All the courses; one named twice counts once.")]


class WithdrawArguments(BaseModel):
    """`enrollment.withdraw.v1`: end a command that waits; one that is not there yet is ended when it comes."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    target: Annotated[CommandId, Field(description="The id of the command that is withdrawn.")]
    source: Annotated[Source | None, Field(description="Who sent the command.")] = None


class Enroll(EnrollArguments):
    """Add these courses to the student's."""

    kind: ClassVar[Kind] = Kind.ENROLL
    command: Literal["enroll"] = "enroll"
    command_id: CommandId


class Unenroll(UnenrollArguments):
    """Take these courses from the student's."""

    kind: ClassVar[Kind] = Kind.UNENROLL
    command: Literal["unenroll"] = "unenroll"
    command_id: CommandId


class Replace(ReplaceArguments):
    """The student's courses are exactly these; an empty list means none."""

    kind: ClassVar[Kind] = Kind.REPLACE
    command: Literal["replace"] = "replace"
    command_id: CommandId


class Withdraw(WithdrawArguments):
    """End a command that waits; one that is not there yet is ended when it comes."""

    kind: ClassVar[Kind] = Kind.WITHDRAW
    student_id: ClassVar[None] = None
    course_ids: ClassVar[None] = None
    command: Literal["withdraw"] = "withdraw"
    command_id: CommandId


Command = Enroll | Unenroll | Replace

MODELS: Final[Mapping[Kind, type[Command]]] = {
    Kind.ENROLL: Enroll,
    Kind.UNENROLL: Unenroll,
    Kind.REPLACE: Replace,
}


class ApplyArguments(BaseModel):
    """`enrollment.apply.v1`: many commands in one message.

    The worker judges each command by itself (`enrollment.parsing`), so that one bad command costs none of the others;
    this model is the shape for producers and for the published schema.
    """

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    commands: Annotated[
        tuple[Annotated[Command, Field(discriminator="command")], ...],
        Strict(strict=False),
        Field(min_length=1, max_length=MAX_COMMANDS, description="The commands, each judged by itself."),
    ]


def as_fields(command: Command | Withdraw) -> dict[str, Any]:
    """A command as JSON can carry it, without what it does not say: an item of an `apply` message."""
    fields: dict[str, Any] = {"command_id": str(command.command_id), "command": command.command}
    if isinstance(command, Withdraw):
        fields["target"] = str(command.target)
    else:
        fields |= {"student_id": command.student_id, "course_ids": list(command.course_ids)}
        if command.issued_at is not None:
            fields["issued_at"] = format_time(command.issued_at)
        if command.effective_at is not None:
            fields["effective_at"] = format_time(command.effective_at)
        if command.wait_until is not None:
            fields["wait_until"] = format_time(command.wait_until)
    if command.source is not None:
        fields["source"] = command.source
    return fields
