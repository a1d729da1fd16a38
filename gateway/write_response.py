"""From what came of a write to its answer: the student's courses, the rejection, or where to ask later."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import Any, Final
from uuid import UUID

from fastapi import Request, Response

from enrollment.commands import Kind
from enrollment.errors import SEND_AGAIN, SEND_IT_AGAIN, ErrorCode, Rejection, unknown_courses, unknown_student
from enrollment.events import Event
from gateway.authentication import Caller
from gateway.dependencies import Gateway, held_by, sender_of
from gateway.preferences import Preference, preference_of
from gateway.problems import Problem
from gateway.schemas.responses import COURSES, Accepted, Command, Effects, Written, answer, outcome_of
from gateway.submission import Change, repeatable_id
from models.queries import checks

# The first of them that a rejection has is what the request is answered with.
_STATUS: Final[Mapping[ErrorCode, int]] = {
    ErrorCode.UNKNOWN_STUDENT: 404,
    ErrorCode.UNKNOWN_COURSES: 422,
    ErrorCode.INVALID_COMMAND: 422,
    ErrorCode.ISSUED_IN_FUTURE: 409,
    ErrorCode.TOO_FAR_AHEAD: 422,
    ErrorCode.ALREADY_DECIDED: 409,
    ErrorCode.TOO_OLD: 409,
    ErrorCode.COURSE_CLOSED: 409,
}

_AGAIN: Final = "send the request again with a new Idempotency-Key"


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """One write of one client: call it with what is wished."""

    gateway: Gateway
    client: Caller
    preference: Preference
    request: str
    key: str | None

    async def __call__(self, *changes: Change) -> Response:
        """Send the changes, wait for what comes of them, and return the answer. Raises a Problem for a rejection."""
        submitted = await self.gateway.submitter.submit(
            changes,
            source=self.client.source,
            wait=self.preference.wait,
            command_id=repeatable_id(self.client.name, self.request, self.key) if self.key else None,
            check=partial(self._require_all, changes) if len(changes) > 1 and not self._may_wait(changes[0]) else None,
        )
        student_id, headers = changes[0].student_id, self.preference.headers
        if submitted.events is None:
            commands = list(map(Command.sent, submitted.commands))
            return answer(Accepted(student_id=student_id, commands=commands), 202, _later(commands, headers))
        require_applied(submitted.events, headers)
        if any(event.is_waiting for event in submitted.events):
            commands = list(map(Command.of, submitted.events))
            return answer(Accepted(student_id=student_id, commands=commands), 202, _later(commands, headers))
        courses = await self.gateway.read.courses_of(student_id)
        commands = list(map(Command.of, submitted.events))
        written = Written.model_construct(
            student_id=student_id,
            courses=COURSES.validate_python(courses),
            effects=commands[0].effects if len(commands) == 1 else _together(submitted.events),
            commands=commands,
        )
        return answer(written, headers=headers)

    async def withdraw(self, target: UUID) -> Response:
        """Withdraw a command, and return the answer. Raises a Problem where it does not wait any more."""
        wait, headers = self.preference.wait, self.preference.headers
        request, event = await self.gateway.submitter.withdraw(target, source=self.client.source, wait=wait)
        if event is None:
            return answer(Command.withdraw(request), 202, {**headers, "Location": f"/commands/{target}"})
        require_applied([event], headers)
        return answer(Command.of(event), headers=headers)

    def _may_wait(self, change: Change) -> bool:
        """Tell whether students and courses that are not there now may be when it is decided."""
        later = change.effective_at is not None and change.effective_at > datetime.now(UTC)
        return bool(change.wait_until or later or self.gateway.settings.policy().patience_of(self.client.source))

    async def _require_all(self, changes: Sequence[Change]) -> None:
        """Refuse at once what would be rejected in part: several commands are one request, and have one outcome.

        The worker decides all the same; a course that is deleted in between makes the difference.
        """
        student_id = changes[0].student_id
        errors = []
        if not await self.gateway.read(checks.has_student, student_id):
            errors.append(unknown_student(student_id))
        missing = await self.gateway.read(checks.missing_courses, chain(*(change.course_ids for change in changes)))
        if missing:
            errors.append(unknown_courses(missing))
        if errors:
            raise rejected(errors, headers=self.preference.headers)


def _later(commands: Sequence[Command], headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that say where the outcome will be: of several commands, of one that has none yet."""
    asked = next((command for command in commands if command.outcome == "waiting"), commands[0])
    return {**headers, "Location": f"/commands/{asked.command_id}", "Retry-After": "1"}


def submit(request: Request, key: str | None) -> WriteRequest:
    """Return what the changes of a request are submitted by. `key` is its Idempotency-Key."""
    gateway = held_by(request)
    return WriteRequest(
        gateway=gateway,
        client=sender_of(request),
        preference=preference_of(request.headers.getlist("prefer"), gateway.settings.gateway_wait),
        request=f"{request.method} {request.scope['route'].path}",
        key=key,
    )


def require_applied(events: Sequence[Event], headers: Mapping[str, str]) -> None:
    """Do nothing if all commands were applied. Raises the Problem that tells what was wrong with which."""
    errors = list({error.message: error for event in events for error in event.data.errors}.values())
    if not errors:
        return
    applied = [event.data.command for event in events if not event.data.errors]
    commands = [
        {"command_id": str(event.id), "command": event.data.command, "outcome": outcome_of(event)} for event in events
    ]
    raise rejected(errors, headers=headers, applied=applied, commands=commands)


def rejected(
    errors: Sequence[Rejection],
    *,
    headers: Mapping[str, str],
    applied: Sequence[Kind | None] = (),
    commands: Sequence[Mapping[str, Any]] = (),
) -> Problem:
    """Return the problem that tells why commands were rejected, and which were `applied` all the same."""
    first = min(errors, key=lambda error: list(_STATUS).index(error.code))
    stands = f" The other part of the request, {' and '.join(map(str, applied))}, was applied and stands."
    return Problem(
        _STATUS[first.code],
        first.code,
        " ".join(map(_over_http, errors)) + (stands if applied else ""),
        ids=first.ids,
        fields=first.fields,
        headers=headers,
        more={
            "errors": [{**error.model_dump(mode="json"), "message": _over_http(error)} for error in errors],
            **({"commands": commands} if commands else {}),
        },
    )


def _over_http(error: Rejection) -> str:
    """Return what to do in the words of HTTP; an event speaks of commands and their ids."""
    return error.message.replace(SEND_AGAIN, _AGAIN).replace(SEND_IT_AGAIN, _AGAIN)


def _together(events: Sequence[Event]) -> Effects:
    if len(events) == 1:
        return Effects.of(events[0].data)

    def ids(effect: str) -> list[int]:
        return sorted(course_id for event in events for course_id in getattr(event.data, effect))

    return Effects(**{effect: ids(effect) for effect in Effects.model_fields})
