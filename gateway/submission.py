"""The write side: commands through the same queue as everyone's, and what came of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final
from uuid import UUID, uuid5

from redis.exceptions import RedisError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from enrollment.commands import MODELS, Command, Kind, Withdraw
from enrollment.errors import DeadLetterCode, UnknownCommand
from enrollment.events import Event, EventData, event_of
from enrollment.ids import uuid7
from enrollment.parsing import content_hash
from gateway.database import Database
from gateway.event_listener import EventListener
from gateway.metrics import Metrics
from gateway.problems import Problem
from gateway.producer import CommandProducer
from gateway.redis_store import CommandStore, Sent
from models import queries
from models.db_errors import is_outage
from models.queries import checks

_LOOK: Final = 1.0  # seconds for the database to answer when the wait is over
_STEP: Final = timedelta(microseconds=1)
_NAMESPACE: Final = UUID("6f0d8a5e-6a0c-5d0e-9c3b-0f4f0f6f9a51")  # of command ids made from Idempotency-Keys


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be done to one student's courses."""

    kind: Kind
    student_id: int
    course_ids: tuple[int, ...]
    effective_at: datetime | None = None
    wait_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Submitted:
    """Commands that were sent, and their events, in the same order; None where there is no outcome yet."""

    commands: tuple[Command, ...]
    events: tuple[Event, ...] | None


def repeatable_id(client: str, request: str, key: str) -> UUID:
    """Return the id of the command that a client's key stands for, in one kind of request."""
    return uuid5(_NAMESPACE, f"{client}\n{request}\n{key}")


class Submitter:
    """Sends changes as commands, all or none of them, and waits for their outcome."""

    def __init__(
        self, read: Database, producer: CommandProducer, listener: EventListener, store: CommandStore, metrics: Metrics
    ) -> None:
        self._read = read
        self._producer = producer
        self._listener = listener
        self._store = store
        self._metrics = metrics
        self._now = datetime.min.replace(tzinfo=UTC)  # of the latest request: what is asked later is issued later

    async def submit(
        self,
        changes: Sequence[Change],
        *,
        source: str,
        wait: float,
        command_id: UUID | None = None,
        check: Callable[[], Awaitable[None]] | None = None,
        note: Callable[[Sequence[UUID]], Awaitable[None]] | None = None,
    ) -> Submitted:
        """Send one request's changes, and wait at most `wait` seconds for what comes of them.

        `command_id` makes them repeatable: the same changes under it are the same commands. `check` is called, and may
        raise, before they are sent for the first time; `note`, with their ids, right before they are. Raises a
        Problem where other changes had the id first,
        BrokerAway, redis.RedisError and DBAPIError.
        """
        now = self._now = max(datetime.now(UTC), self._now + _STEP)
        commands = _commands(changes, command_id or uuid7(), now, source)
        ids = [command.command_id for command in commands]
        since = None  # under a new id there is no older dead letter
        with self._listener.expecting(ids) as expected:
            if command_id is not None:
                commands, stored = await self._repeatable(commands, check)
                if stored is not None:
                    return Submitted(commands, stored)
                since = await self._read(checks.clock)
            elif check is not None:
                await check()
            if note is not None:
                await note(ids)
            await self._producer.send(commands)
            self._metrics.sent(command.command for command in commands)
            events = tuple(expected.events()) if wait > 0 and await expected.wait(wait) else None
        if events is None and wait > 0:
            events = await self._looked_up(ids, since)  # the stream may be away, or have lost the event
        if events is None:
            await self._remember(commands, since)
            return Submitted(commands, None)
        return Submitted(commands, _require_same(commands, events))

    async def withdraw(self, target: UUID, *, source: str, wait: float) -> tuple[Withdraw, Event | None]:
        """Send a withdraw, and wait at most `wait` seconds for its event; None where there is none yet.

        One source withdraws a command under one id, however often it asks. Raises BrokerAway, redis.RedisError and
        DBAPIError.
        """
        request = Withdraw(command_id=uuid5(target, f"withdraw from {source}"), target=target, source=source)
        ids = [request.command_id]
        with self._listener.expecting(ids) as expected:
            events = await self._stored(ids)
            if events is None:
                await self._producer.send([request])
                self._metrics.sent([request.command])
                events = tuple(expected.events()) if wait > 0 and await expected.wait(wait) else None
        if events is None and wait > 0:
            events = await self._looked_up(ids, None)
        return request, events[0] if events else None

    async def _repeatable(
        self, commands: tuple[Command, ...], check: Callable[[], Awaitable[None]] | None
    ) -> tuple[tuple[Command, ...], tuple[Event, ...] | None]:
        """Return the commands as they were asked for the first time, and what came of them, if it is known.

        Raises a Problem when they were others.
        """
        first = await self._store.recall(commands[0].command_id)
        if first is not None:
            commands = _as_first(commands, first)
        stored = await self._stored([command.command_id for command in commands])
        if stored is not None:
            return commands, _require_same(commands, stored)
        if check is not None and first is None:  # what was sent before has passed it
            await check()
        return _as_first(commands, await self._store.remember(commands[0].command_id, _sent(commands))), None

    async def _looked_up(self, command_ids: Sequence[UUID], since: datetime | None) -> tuple[Event, ...] | None:
        """Return the outcome of what was sent, if it is known soon. A database that is away does not unsend it."""
        try:
            async with asyncio.timeout(_LOOK):
                events = await self._stored(command_ids)
                if events is None:
                    await self.require_no_failure(command_ids, since)
        except TimeoutError:
            return None
        except (DBAPIError, PoolTimeout) as error:
            if not is_outage(error):
                raise
            return None
        return events

    async def require_no_failure(self, command_ids: Sequence[UUID], since: datetime | None = None) -> None:
        """Raise a Problem, 409, for a command that is a dead letter. To be asked of those without an outcome.

        With `since`, a time of the database, only for one that came from then on: the command was sent again.
        """
        for command_id in command_ids:
            failure = await self._read(checks.failure, command_id, since)
            if failure is not None:
                more = {"command_id": str(command_id)}
                why = failure.message if failure.message.endswith((".", "!", "?")) else f"{failure.message}."
                detail = f"{why} It is kept as a dead letter; an administrator can mend and replay it."
                raise Problem(409, failure.code, detail, more=more)

    async def _remember(self, commands: Sequence[Command], since: datetime | None) -> None:
        """Let `GET /commands/{id}` say that there is such a command; that it was sent matters more."""
        try:
            for position, command in enumerate(commands):
                sent = _sent([command] if position else commands)
                await self._store.renew(command.command_id, sent.model_copy(update={"since": since}))
        except RedisError:
            pass

    async def _stored(self, command_ids: Sequence[UUID]) -> tuple[Event, ...] | None:
        try:
            return tuple([event_of(await self._read(queries.command, command_id)) for command_id in command_ids])
        except UnknownCommand:
            return None


def _commands(changes: Sequence[Change], command_id: UUID, issued_at: datetime, source: str) -> tuple[Command, ...]:
    """The first change has the id itself; those of the others are made from it."""
    return tuple(
        MODELS[change.kind](
            command_id=uuid5(command_id, str(position)) if position else command_id,
            student_id=change.student_id,
            course_ids=change.course_ids,
            issued_at=issued_at,
            source=source,
            effective_at=change.effective_at,
            wait_until=change.wait_until,
        )
        for position, change in enumerate(changes)
    )


def _sent(commands: Sequence[Command]) -> Sent:
    return Sent(issued_at=commands[0].issued_at or datetime.now(UTC), content=_content(commands))


def _as_first(commands: Sequence[Command], first: Sent) -> tuple[Command, ...]:
    """Return the commands as they were asked for the first time. Raises a Problem when they were others."""
    if first.content != _content(commands):
        raise _reused(commands[0].command_id)
    return tuple(command.model_copy(update={"issued_at": first.issued_at}) for command in commands)


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
