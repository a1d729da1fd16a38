"""From a unit to what waits in the database, and back."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter

from enrollment.commands import MODELS, Kind, Withdraw, as_fields
from enrollment.parsing import Invalid, Request, Unidentified, canonical, content_hash
from enrollment.waiting import Waiting
from models.dead_letters import headers_as_json
from models.deferred import Deferred, Reason, Wait
from tasks.messages import Message, Unit

_INVALID: Final = TypeAdapter(Invalid)
_UNIDENTIFIED: Final = TypeAdapter(Unidentified)


@dataclass(frozen=True, slots=True)
class PutOff:
    """What came of a unit for now: it waits in the database, and its message is done with."""

    wait: Wait


def wait_of(waiting: Waiting) -> Wait:
    """Return by what a command is found that waits: its time, its student, or the first of its courses."""
    first = waiting.waiting_for[0]
    match first.code:
        case "effective_at":
            return Wait(Reason.TIME, 0)
        case "unknown_student":
            return Wait(Reason.UNKNOWN_STUDENT, min(first.ids))
        case "unknown_courses":
            return Wait(Reason.UNKNOWN_COURSE, min(first.ids))


def to_be_kept(unit: Unit, wait: Wait, first_seen: datetime, waiting: Waiting | None = None) -> Deferred:
    """Return what is to be kept of a unit; `waiting` where it is not for a lock."""
    request = unit.request
    promised = None if unit.kept is None else unit.kept.promised
    known = None if isinstance(request, Unidentified) else request
    return Deferred(
        wait=wait,
        first_seen=first_seen,
        command_id=None if known is None else known.command_id,
        content_hash=None if known is None else content_hash(known),
        student_id=None if known is None else known.student_id,
        request=_written(request),
        task=unit.message.task,
        task_id=unit.message.task_id,
        message_key=unit.message.key,
        position=unit.position,
        headers=headers_as_json(unit.message.headers),
        until=promised if waiting is None else waiting.until,
        told=waiting is not None or is_told(unit),
    )


def is_told(unit: Unit) -> bool:
    """Tell whether the world knows already that this command waits."""
    return unit.kept is not None and unit.kept.told


def units_from(commands: Iterable[Deferred]) -> list[Unit]:
    """Return the units that were kept, in order of arrival."""
    ordered = sorted(commands, key=lambda command: (command.first_seen, command.id))
    return [_unit(index, command) for index, command in enumerate(ordered)]


def _unit(index: int, kept: Deferred) -> Unit:
    message = Message(kept.task, kept.task_id, kept.message_key, headers=json.loads(kept.headers))
    return Unit(message, index, kept.position, _read(kept.request), kept)


def _written(request: Request | Withdraw | Unidentified) -> str:
    match request:
        case Invalid():
            return f'{{"invalid":{_INVALID.dump_json(request).decode()}}}'
        case Unidentified():
            return f'{{"unidentified":{_UNIDENTIFIED.dump_json(request).decode()}}}'
        case _:
            return canonical({"command": as_fields(request)})


def _read(text: str) -> Request | Withdraw | Unidentified:
    [(kind, fields)] = json.loads(text).items()
    if kind == "invalid":
        return _INVALID.validate_json(json.dumps(fields))
    if kind == "unidentified":
        return _UNIDENTIFIED.validate_json(json.dumps(fields))
    command: dict[str, Any] = fields
    if command["command"] == Kind.WITHDRAW:
        return Withdraw.model_validate(command)
    return MODELS[Kind(command["command"])].model_validate(command)
