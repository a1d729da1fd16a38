"""What requests are answered with."""

from collections.abc import Mapping
from datetime import datetime
from hashlib import blake2b
from typing import Annotated, Final, Literal, Self, cast
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from enrollment import commands
from enrollment.commands import Kind, Time
from enrollment.errors import Rejection
from enrollment.events import Event, EventData
from enrollment.waiting import WaitingFor
from models.queries import StudentWithCourses

JSON: Final = "application/json"
_ROW: Final = ConfigDict(from_attributes=True)  # what `models.queries` returns will do

Outcome = Literal["applied", "rejected", "waiting", "withdrawn", "pending"]


class Course(BaseModel):
    """A course."""

    model_config = _ROW

    id: int
    sis_id: Annotated[str | None, Field(description="Its name in the student information system.")]
    code: str
    title: str


class Student(BaseModel):
    """A student."""

    model_config = _ROW

    id: int
    sis_id: Annotated[str | None, Field(description="Their name in the student information system.")]
    name: str


COURSES: Final = TypeAdapter(list[Course])


class StudentCourses(BaseModel):
    """A student, and the courses they are enrolled in, by id."""

    id: int
    sis_id: Annotated[str | None, Field(description="Their name in the student information system.")]
    name: str
    courses: list[Course]

    @classmethod
    def of(cls, found: StudentWithCourses) -> "StudentCourses":
        """Return the answer for a row."""
        return cls.model_validate({**found.student._asdict(), "courses": found.courses})


class CoursesOf(BaseModel):
    """The courses a student is enrolled in, by id."""

    student_id: int
    courses: list[Course]


class StudentPage(BaseModel):
    """Students, by id. `after` asks for the next page; null where this is the last."""

    model_config = _ROW

    items: list[Student]
    after: int | None


class StudentCoursesPage(BaseModel):
    """Students with their courses, by id. `after` asks for the next page; null where this is the last."""

    items: list[StudentCourses]
    after: int | None


class CoursePage(BaseModel):
    """Courses, by id. `after` asks for the next page; null where this is the last."""

    model_config = _ROW

    items: list[Course]
    after: int | None


class Effects(BaseModel):
    """Course ids by what was done to them, each ascending."""

    enrolled: list[int] = []
    unenrolled: list[int] = []
    unchanged: Annotated[list[int], Field(description="It already was so.")] = []
    superseded: Annotated[list[int], Field(description="A newer command had decided already.")] = []

    @classmethod
    def of(cls, data: EventData) -> "Effects":
        """Return those of one command."""
        return cls.model_construct(
            enrolled=list(data.enrolled),
            unenrolled=list(data.unenrolled),
            unchanged=list(data.unchanged),
            superseded=list(data.superseded),
        )


class Command(BaseModel):
    """A command, and what came of it. Of one that is `pending`, little more may be known than that it was sent."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "command_id": "019a9f40-5b1e-7cc1-8f7e-3a8a1c6b2d10",
                "outcome": "applied",
                "command": "enroll",
                "student_id": 42,
                "course_ids": [101, 102],
                "issued_at": "2026-01-31T09:30:00.000481Z",
                "processed_at": "2026-01-31T09:30:00.004Z",
                "source": "http/portal",
                "effects": {"enrolled": [101], "unenrolled": [], "unchanged": [102], "superseded": []},
                "errors": [],
            }
        }
    )

    command_id: UUID
    outcome: Outcome
    command: Kind | None = None
    student_id: int | None = None
    course_ids: list[int] | None = None
    issued_at: Time | None = None
    processed_at: Time | None = None
    source: str | None = None
    effects: Effects = Effects()
    errors: list[Rejection] = []
    waiting_for: Annotated[list[WaitingFor], Field(description="Of one that waits: what for.")] = []
    until: Annotated[Time | None, Field(description="Of one that waits: until when, at the longest.")] = None
    target: Annotated[UUID | None, Field(description="Of a withdraw: the command that it is about.")] = None

    @classmethod
    def of(cls, event: Event) -> "Command":
        """Return the answer for an event."""
        data = event.data
        return cls.model_construct(
            command_id=data.command_id,
            outcome=outcome_of(event),
            command=data.command,
            student_id=data.student_id,
            course_ids=None if data.course_ids is None else list(data.course_ids),
            issued_at=data.issued_at,
            processed_at=event.time,
            source=data.source,
            effects=Effects.of(data),
            errors=list(data.errors),
            waiting_for=list(data.waiting_for),
            until=data.until,
            target=data.target,
        )

    @classmethod
    def pending(cls, command_id: UUID, issued_at: datetime) -> Self:
        """Return the answer for a command of which little more is known than that it was sent."""
        return cls(command_id=command_id, outcome="pending", issued_at=issued_at)

    @classmethod
    def sent(cls, command: commands.Command) -> Self:
        """Return the answer for a command that has just been sent."""
        return cls(
            command_id=command.command_id,
            outcome="pending",
            command=command.kind,
            student_id=command.student_id,
            course_ids=list(command.course_ids),
            issued_at=command.issued_at,
            source=command.source,
        )

    @classmethod
    def withdraw(cls, request: commands.Withdraw) -> Self:
        """Return the answer for a withdraw that has just been sent."""
        kind, target = request.kind, request.target
        return cls(command_id=request.command_id, outcome="pending", command=kind, source=request.source, target=target)


class Written(BaseModel):
    """What a write came to: the student's courses now, what was done to which, and the commands it was."""

    student_id: int
    courses: list[Course]
    effects: Effects
    commands: list[Command]


class Accepted(BaseModel):
    """A write whose outcome is not known yet. `Location` names the first of its commands."""

    student_id: int
    commands: list[Command]


def outcome_of(event: Event) -> Outcome:
    """Return what came of an event's command."""
    return cast("Outcome", event.type.split(".")[1])


def answer(content: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer, written by pydantic itself."""
    body = content.model_dump_json()
    return Response(body, status, headers, JSON)


def lookup(request: Request, content: BaseModel, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer with its `ETag`; only that, and 304, where the client has it already (RFC 9110, 13.1.2)."""
    body = content.model_dump_json().encode()
    etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    all_headers = {"ETag": etag, "Cache-Control": "private, no-cache", **(headers or {})}
    if _has(request.headers.get("if-none-match", ""), etag):
        return Response(status_code=304, headers=all_headers)
    return Response(body, 200, all_headers, JSON)


def next_page(request: Request, after: int | None) -> dict[str, str]:
    """Return the `Link` to the next page (RFC 8288), if there is one."""
    if after is None:
        return {}
    url = request.url.include_query_params(after=after)
    return {"Link": f'<{url.path}?{url.query}>; rel="next"'}


def _has(header: str, etag: str) -> bool:
    return header.strip() == "*" or etag in (tag.strip().removeprefix("W/") for tag in header.split(","))
