"""Every error a person can meet, one class per reason; and the reasons for which a command is rejected."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field


class EnrollmentError(Exception):
    """The base of all errors of this project; the message is one sentence with what to do next."""


class UnknownStudent(EnrollmentError):
    """There is no such student."""

    def __init__(self, student_id: int) -> None:
        super().__init__(f"There is no student {student_id}; check the id, or load the student with `catalog load`.")
        self.student_id = student_id


class UnknownCourse(EnrollmentError):
    """There is no such course."""

    def __init__(self, course_id: int) -> None:
        super().__init__(f"There is no course {course_id}; check the id, or load the course with `catalog load`.")
        self.course_id = course_id


class UnknownCommand(EnrollmentError):
    """No command with this id has been processed."""

    def __init__(self, command_id: object) -> None:
        super().__init__(
            f"No command {command_id} has been processed; it may still be in the queue, or never was sent."
        )
        self.command_id = command_id


class UnknownDeadLetter(EnrollmentError):
    """There is no dead letter with this id."""

    def __init__(self, dead_letter_id: int) -> None:
        super().__init__(f"There is no dead letter {dead_letter_id}; `dead-letters list` shows the ones there are.")
        self.dead_letter_id = dead_letter_id


class ErrorCode(StrEnum):
    """Why a command was rejected. A code never changes its meaning and is never used again."""

    UNKNOWN_STUDENT = "unknown_student"
    UNKNOWN_COURSES = "unknown_courses"
    INVALID_COMMAND = "invalid_command"
    ISSUED_IN_FUTURE = "issued_in_future"
    TOO_FAR_AHEAD = "too_far_ahead"
    ALREADY_DECIDED = "already_decided"
    TOO_OLD = "too_old"
    COURSE_CLOSED = "course_closed"


class DeadLetterCode(StrEnum):
    """Why a message became a dead letter. Rejected commands are dead letters only when they are invalid."""

    INVALID_COMMAND = "invalid_command"
    COMMAND_ID_REUSED = "command_id_reused"
    COMMAND_ID_MISSING = "command_id_missing"
    PROCESSING_FAILED = "processing_failed"
    NOT_A_MESSAGE = "not_a_message"
    UNDECODABLE_BODY = "undecodable_body"
    TOO_LARGE = "too_large"
    UNKNOWN_TASK = "unknown_task"
    TOO_MANY_DELIVERIES = "too_many_deliveries"
    REVOKED = "revoked"
    EXPIRED = "expired"


# How the message of every rejection ends; over HTTP something else is to be sent.
SEND_AGAIN: Final = "send the command again with a new id"
SEND_IT_AGAIN: Final = "send it again with a new id"


class Rejection(BaseModel):
    """One reason why a command was rejected, as it stands in `data.errors` of the event."""

    # As of an event: a reader does not stumble over a field of a later version.
    model_config = ConfigDict(frozen=True, extra="ignore")

    code: ErrorCode
    message: Annotated[str, Field(description="What is wrong and what to do, for a person.")]
    ids: Annotated[tuple[int, ...], Field(description="The student or course ids concerned.")] = ()
    fields: Annotated[tuple[str, ...], Field(description="The fields concerned.")] = ()


def unknown_student(student_id: int) -> Rejection:
    """The command names a student that does not exist."""
    return Rejection(
        code=ErrorCode.UNKNOWN_STUDENT,
        message=f"There is no student {student_id}. Create the student, then {SEND_AGAIN}.",
        ids=(student_id,),
        fields=("student_id",),
    )


def unknown_courses(course_ids: Iterable[int], *, most: int | None = None) -> Rejection:
    """The command names courses that do not exist: all in ascending order, `most` of them in the message."""
    ids = tuple(sorted(course_ids))
    more = f" and {len(ids) - most:,} more" if most is not None and len(ids) > most else ""
    noun, them = ("course", "it") if len(ids) == 1 else ("courses", "them")
    return Rejection(
        code=ErrorCode.UNKNOWN_COURSES,
        message=(
            f"There {'is' if len(ids) == 1 else 'are'} no {noun} {', '.join(map(str, ids[:most]))}{more}. "
            f"Nothing was changed. Create {them} or leave {them} out, then {SEND_AGAIN}."
        ),
        ids=ids,
        fields=("course_ids",),
    )


def issued_in_future(issued_at: str, minutes: int) -> Rejection:
    """The command claims to come from a time that the worker's clock is more than `minutes` away from."""
    return Rejection(
        code=ErrorCode.ISSUED_IN_FUTURE,
        message=(
            f"issued_at is {issued_at}, more than {minutes} minutes ahead of the worker's clock. "
            f"Set the sender's clock right, then {SEND_AGAIN}."
        ),
        fields=("issued_at",),
    )


def too_far_ahead(field: str, time: str, days: float) -> Rejection:
    """The command is to wait for longer than the deployment allows."""
    return Rejection(
        code=ErrorCode.TOO_FAR_AHEAD,
        message=f"{field} is {time}, more than {days:g} days ahead. Nothing was changed. Choose an earlier time, then "
        f"{SEND_AGAIN}.",
        fields=(field,),
    )


def already_decided(target: object, outcome: str) -> Rejection:
    """The command that was to be withdrawn does not wait any more."""
    return Rejection(
        code=ErrorCode.ALREADY_DECIDED,
        message=f"Command {target} can no longer be withdrawn: it was {outcome}. Nothing was changed. Send a command "
        "that decides otherwise.",
        fields=("target",),
    )


def too_old(issued_at: str, before: str) -> Rejection:
    """The command is from a time of which the commands are forgotten: it may be a repeat."""
    return Rejection(
        code=ErrorCode.TOO_OLD,
        message=(
            f"issued_at is {issued_at}, and commands from before {before} are no longer kept, so this one may be a "
            f"repeat. If it still is to happen, set issued_at to now and {SEND_AGAIN}."
        ),
        fields=("issued_at",),
    )


def course_closed(course_ids: Iterable[int]) -> Rejection:
    """The command would enroll a student in courses that take no more enrollments."""
    ids = tuple(sorted(course_ids))
    are, them = ("Course {} is", "it") if len(ids) == 1 else ("Courses {} are", "them")
    return Rejection(
        code=ErrorCode.COURSE_CLOSED,
        message=(
            f"{are.format(', '.join(map(str, ids)))} closed: no one can be enrolled any more. Nothing was changed. "
            f"Open {them} or leave {them} out, then {SEND_AGAIN}."
        ),
        ids=ids,
        fields=("course_ids",),
    )
