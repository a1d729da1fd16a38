"""The write side: commands through the same queue as everyone's, and what came of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final
from uuid import UUID, uuid5

from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from uuid_utils.compat import uuid7

from enrollment.commands import MODELS, Command, Kind
from enrollment.errors import DeadLetterCode, UnknownCommand
from enrollment.events import Event, EventData, event_of
from enrollment.parsing import content_hash
from gateway.memory import Memory, Sent
from gateway.metrics import Metrics
from gateway.problems import Problem
from gateway.reading import Reader
from gateway.sending import Outbound
from gateway.waiting import Listener
from models import lookups, queries
from models.faults import is_outage

_STEP: Final = timedelta(microseconds=1)
_NAMESPACE: Final = UUID("6f0d8a5e-6a0c-5d0e-9c3b-0f4f0f6f9a51")  # of command ids made from Idempotency-Keys


@dataclass(frozen=True, slots=True)
class Wish:
    """What is to be done to one student's courses."""

    kind: Kind
    student_id: int
    course_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Submitted:
    """Commands that were sent, and their events, in the same order; None where there is no outcome yet."""

    commands: tuple[Command, ...]
    events: tuple[Event, ...] | None


def repeatable_id(client: str, request: str, key: str) -> UUID:
    """Return the id of the command that a client's key stands for, in one kind of request."""
    return uuid5(_NAMESPACE, f"{client}\n{request}\n{key}")


class Writer:
    """Sends wishes as commands, all or none of them, and waits for their outcome."""

    def __init__(self, read: Reader, outbound: Outbound, listener: Listener, memory: Memory, metrics: Metrics) -> None:
        self._read = read
        self._outbound = outbound
        self._listener = listener
        self._memory = memory
        self._metrics = metrics
        self._now = datetime.min.replace(tzinfo=UTC)  # of the latest request: what is asked later is issued later

    async def submit(
        self, wishes: Sequence[Wish], *, source: str, wait: float, command_id: UUID | None = None
    ) -> Submitted:
        """Send one request's wishes, and wait at most `wait` seconds for what comes of them.

        `command_id` makes them repeatable: the same wishes under it are the same commands. Raises a Problem where
        other wishes had it first, BrokerAway, redis.RedisError and DBAPIError.
        """
        now = self._now = max(datetime.now(UTC), self._now + _STEP)
        if command_id is None:
            commands = _commands(wishes, uuid7(), now, source)
        else:
            commands = await self._repeatable(wishes, command_id, now, source)
        ids = [command.command_id for command in commands]
        with self._listener.expecting(ids) as expected:
            if command_id is not None:
                stored = await self._stored(ids)
                if stored is not None:
                    return Submitted(commands, _require_same(commands, stored))
            await self._outbound.send(commands)
            self._metrics.sent(command.command for command in commands)
            events = None
            if wait > 0 and await expected.wait(wait):
                events = tuple(expected.events())
        if events is None and wait > 0:
            events = await self._looked_up(ids)  # the stream may be away, or have lost the event
        if events is None:
            await self._remember(commands)
            return Submitted(commands, None)
        return Submitted(commands, _require_same(commands, events))

    async def _looked_up(self, command_ids: Sequence[UUID]) -> tuple[Event, ...] | None:
        """Return the outcome of what was sent, if it is known. A database that is away does not unsend it."""
        try:
            events = await self._stored(command_ids)
            if events is None:
                await self.require_no_failure(command_ids)
        except (DBAPIError, PoolTimeout) as error:
            if not is_outage(error):
                raise
            return None
        return events

    async def require_no_failure(self, command_ids: Sequence[UUID]) -> None:
        """Raise a Problem, 409, for a command that is a dead letter. To be asked of those without an outcome."""
        for command_id in command_ids:
            failure = await self._read(lookups.failure, command_id)
            if failure is not None:
                more = {"command_id": str(command_id)}
                detail = f"{failure.message} It is kept as a dead letter; an administrator can mend and replay it."
                raise Problem(409, failure.code, detail, more=more)

    async def _repeatable(
        self, wishes: Sequence[Wish], command_id: UUID, now: datetime, source: str
    ) -> tuple[Command, ...]:
        """Return the commands as they were sent the first time. Raises a Problem when they were others."""
        commands = _commands(wishes, command_id, now, source)
        mine = Sent(issued_at=now, content=_content(commands))
        first = await self._memory.remember(command_id, mine)
        if first.content != mine.content:
            raise _reused(command_id)
        return _commands(wishes, command_id, first.issued_at, source)

    async def _remember(self, commands: Sequence[Command]) -> None:
        """Let `GET /commands/{id}` say that there is such a command; that it was sent matters more."""
        try:
            for command in commands:
                issued_at = command.issued_at or datetime.now(UTC)
                await self._memory.remember(command.command_id, Sent(issued_at=issued_at, content=_content([command])))
        except RedisError:
            pass

    async def _stored(self, command_ids: Sequence[UUID]) -> tuple[Event, ...] | None:
        try:
            return tuple([event_of(await self._read(queries.command, command_id)) for command_id in command_ids])
        except UnknownCommand:
            return None


def _commands(wishes: Sequence[Wish], command_id: UUID, issued_at: datetime, source: str) -> tuple[Command, ...]:
    """The first wish has the id itself; those of the others are made from it."""
    return tuple(
        MODELS[wish.kind](
            command_id=uuid5(command_id, str(position)) if position else command_id,
            student_id=wish.student_id,
            course_ids=wish.course_ids,
            issued_at=issued_at,
            source=source,
        )
        for position, wish in enumerate(wishes)
    )


def _content(commands: Sequence[Command]) -> str:
    hashes = (content_hash(command.model_copy(update={"issued_at": None})) for command in commands)
    return blake2b(b"".join(hashes), digest_size=16).hexdigest()


def _require_same(commands: Sequence[Command], events: tuple[Event, ...]) -> tuple[Event, ...]:
    """Return the events, if they are those of these commands. When they were issued is not compared."""
    for command, event in zip(commands, events, strict=True):
        if not _is_of(command, event.data):
            raise _reused(command.command_id)
    return events


def _is_of(command: Command, data: EventData) -> bool:
    return (command.kind, command.student_id, set(command.course_ids), command.source) == (
        data.command,
        data.student_id,
        set(data.course_ids or ()),
        data.source,
    )


def _reused(command_id: UUID) -> Problem:
    return Problem(
        409,
        DeadLetterCode.COMMAND_ID_REUSED,
        "This Idempotency-Key was used for another request, which stands. Send this one with a new key.",
        more={"command_id": str(command_id)},
    )
