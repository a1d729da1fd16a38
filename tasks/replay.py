"""Dead letters sent again: as they are, or corrected, as commands that are linked to the dead letter they come from."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID, uuid5

from sqlalchemy import Engine

from enrollment.commands import Command, Kind, parse_time
from enrollment.errors import DeadLetterCode, EnrollmentError
from enrollment.names import KINDS
from enrollment.parsing import Invalid, Request, Unidentified, content_hash, parse_many, parse_single
from models import audit, dead_letters
from models.dead_letters import DeadLetter
from tasks.messages import eta_of

_NAMESPACE: Final = UUID("5f0c7c52-6f0e-4c27-9c43-2b8a4f0d8a11")  # of ids made for replays; never to change
_ID_TAKEN: Final = (DeadLetterCode.INVALID_COMMAND, DeadLetterCode.COMMAND_ID_REUSED)

Send = Callable[[Sequence[Command]], object]


class CannotReplay(EnrollmentError):
    """The dead letter holds no valid command."""

    def __init__(self, dead_letter_id: int, reason: str) -> None:
        super().__init__(f"Dead letter {dead_letter_id} cannot be replayed as it is: {reason}")
        self.dead_letter_id = dead_letter_id
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Replayed:
    """A dead letter and the commands that stand for it now; none where it had been decided about before."""

    dead_letter_id: int
    command_ids: tuple[UUID, ...]


def replay(
    engine: Engine, send: Send, dead_letter_id: int, payload: str | None = None, *, by: str = "nobody"
) -> Replayed:
    """Send the commands of a dead letter through the queue, with `payload` (JSON) in place of its own where given.

    `by` is who wants it, for the audit.

    A command keeps its id where nothing was processed under it, and its `issued_at`; where it had none, it gets the
    time at which the message was kept. So a replay never undoes what came later. Ids and times are made from what is
    stored: a replay that was cut off is harmless when it is done again.

    Raises UnknownDeadLetter, CannotReplay, and what `send` raises; the dead letter is then as it was.
    """
    with engine.begin() as connection:
        letter = dead_letters.lock(connection, dead_letter_id)
        if not letter.is_open:
            return Replayed(letter.id, letter.replayed_as or ())
        commands = list(_commands(letter, payload))
        ids = tuple(command.command_id for command in commands)
        done = dead_letters.processed(connection, ids)
        if len(done) < len(ids):
            send([command for command in commands if command.command_id not in done])
        dead_letters.mark_replayed(connection, letter.id, ids)
        action = audit.REPLAYED if payload is None else audit.EDITED
        audit.add(connection, by, action, [audit.dead_letter(letter.id)], command_ids=ids, detail=_edited(payload))
    return Replayed(letter.id, ids)


def _edited(payload: str | None) -> dict[str, str]:
    """Return what tells one correction from another, without what it says of a student."""
    return {} if payload is None else {"payload_sha256": sha256(payload.encode()).hexdigest()}


def _commands(letter: DeadLetter, payload: str | None) -> Iterator[Command]:
    requests, have_ids = _requests(letter, payload)
    taken = payload is not None or letter.command_id is None or letter.code in _ID_TAKEN
    for request in requests:
        if isinstance(request, Invalid):
            raise CannotReplay(letter.id, request.rejection.message)
        if isinstance(request, Unidentified):
            raise CannotReplay(letter.id, request.message)
        stamped = _stamped(letter, request)
        yield stamped if have_ids or not taken else _under_a_new_id(letter, stamped)


def _requests(letter: DeadLetter, payload: str | None) -> tuple[Sequence[Request | Unidentified], bool]:
    """Return what the payload asks for, and whether each of it has an id of its own, as in an `apply` message."""
    try:
        decoded: Any = json.loads(payload if payload is not None else letter.payload)
    except (ValueError, RecursionError):
        raise CannotReplay(letter.id, "it is not JSON; replay it with a corrected payload.") from None
    eta = eta_of(json.loads(letter.headers or "{}"))
    placeholder = letter.command_id or uuid5(_NAMESPACE, f"dead letter {letter.id}")
    match decoded:
        case {"commands": list()}:
            return parse_many([], decoded), True
        case {"command": _}:
            return parse_many([], {"commands": [{**decoded, "command_id": str(placeholder)}]}), False
        case [list() as args, dict() as kwargs, *_] if KINDS.get(letter.task or "", Kind.ENROLL) is None:
            return parse_many(args, kwargs, eta), True
        case [list() as args, dict() as kwargs, *_]:
            return [parse_single(_kind(letter), placeholder, args, kwargs, eta)], False
        case dict():
            return [parse_single(_kind(letter), placeholder, [], decoded, eta)], False
    raise CannotReplay(letter.id, "its payload is neither a command nor the arguments of one.")


def _kind(letter: DeadLetter) -> Kind:
    kind = KINDS.get(letter.task or "")
    if kind is Kind.WITHDRAW:
        raise CannotReplay(letter.id, "it withdraws another; withdraw that with `enrollment waiting withdraw`.")
    if kind is None:
        raise CannotReplay(letter.id, "it does not say what to do; add the field command: enroll, unenroll or replace.")
    return kind


def _under_a_new_id(letter: DeadLetter, command: Command) -> Command:
    content = content_hash(command).hex()
    return command.model_copy(update={"command_id": uuid5(_NAMESPACE, f"dead letter {letter.id} {content}")})


def _stamped(letter: DeadLetter, command: Command) -> Command:
    if command.issued_at is not None:
        return command
    return command.model_copy(update={"issued_at": _original_time(letter)})


def _original_time(letter: DeadLetter) -> datetime:
    """Return what the message said of its time, or else when it was kept."""
    try:
        decoded: Any = json.loads(letter.payload)
        return parse_time(decoded["issued_at"] if isinstance(decoded, dict) else decoded[1]["issued_at"])
    except (ValueError, RecursionError, KeyError, IndexError, TypeError):
        return letter.received_at
