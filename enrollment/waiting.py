"""Which commands wait instead of being decided: for their time, or for a student or course. Pure: no I/O, no clock."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from enrollment.commands import Command, Time, format_time
from enrollment.errors import ErrorCode, Rejection, too_far_ahead
from enrollment.parsing import Invalid, Request

TIME: Final = "effective_at"
_DAY: Final = timedelta(days=1)
_CURED: Final = (ErrorCode.UNKNOWN_STUDENT, ErrorCode.UNKNOWN_COURSES)  # by waiting


class WaitingFor(BaseModel):
    """One thing that a command waits for: what it would be rejected with, or its time."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    code: Annotated[
        Literal["unknown_student", "unknown_courses", "effective_at"],
        Field(description="What it would be rejected with, or `effective_at`: its time."),
    ]
    ids: Annotated[tuple[int, ...], Field(description="The student or course ids that are waited for.")] = ()


class Waiting(BaseModel):
    """What a command waits for, all of it, and until when."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    waiting_for: Annotated[tuple[WaitingFor, ...], Field(min_length=1)]
    until: Time


@dataclass(frozen=True, slots=True)
class Policy:
    """How long a deployment lets commands wait where they do not say, and how long at most."""

    patience: timedelta = timedelta(0)  # for students and courses that do not exist
    by_source: Mapping[str, timedelta] = field(default_factory=dict)  # the same, of some sources
    longest: timedelta | None = None

    def patience_of(self, source: str | None) -> timedelta:
        """Return how long the commands of a source wait for their student and courses where they do not say."""
        return self.by_source.get(source or "", self.patience)

    def until(self, command: Command, seen_at: datetime) -> datetime | None:
        """Return until when a command waits for its student and courses; its patience begins with its time."""
        if command.wait_until is not None:
            return command.wait_until
        patience = self.patience_of(command.source)
        if not patience:
            return None
        try:
            return max(seen_at, command.effective_at or seen_at) + patience
        except OverflowError:
            return datetime.max.replace(tzinfo=seen_at.tzinfo)

    def rejections(self, command: Command, seen_at: datetime) -> list[Rejection]:
        """Return why a command may not wait as long as it says."""
        if self.longest is None:
            return []
        said = ((TIME, command.effective_at), ("wait_until", command.wait_until))
        return [
            too_far_ahead(name, format_time(time), self.longest / _DAY)
            for name, time in said
            if time is not None and time - seen_at > self.longest
        ]

    def waiting(
        self,
        request: Request,
        rejections: Sequence[Rejection],
        seen_at: datetime,
        now: datetime,
        promised: Mapping[UUID, datetime],
    ) -> Waiting | None:
        """Return what a command waits for that would be decided now with these `rejections`; None: it is decided.

        What no waiting cures is told at once. `promised` says of commands that waited already until when they do.
        """
        if isinstance(request, Invalid) or not (rejections or request.effective_at):
            return None
        if any(rejection.code not in _CURED for rejection in rejections):
            return None
        if request.effective_at is not None and request.effective_at > now:
            return Waiting(waiting_for=(WaitingFor(code=TIME),), until=request.effective_at)
        until = promised.get(request.command_id) or self.until(request, seen_at)
        if not rejections or until is None or until <= now:
            return None
        missing = [WaitingFor.model_validate({"code": r.code.value, "ids": r.ids}) for r in rejections]
        return Waiting(waiting_for=tuple(missing), until=until)


AT_ONCE: Final = Policy()  # nothing waits that does not say so
