"""From a unit to what waits in the database, and back."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from pydantic import TypeAdapter

from enrollment.commands import MODELS, Kind, as_fields
from enrollment.parsing import Invalid, Request, Unidentified, canonical, content_hash
from models.dead_letters import headers_as_json
from models.deferred import Deferred, Wait
from tasks.messages import Message, Unit

_INVALID: Final = TypeAdapter(Invalid)
_UNIDENTIFIED: Final = TypeAdapter(Unidentified)


@dataclass(frozen=True, slots=True)
class PutOff:
    """What came of a unit for now: it waits in the database, and its message is done with."""

    wait: Wait


def to_be_kept(unit: Unit, wait: Wait, first_seen: datetime) -> Deferred:
    """Return what is to be kept of a unit."""
    request = unit.request
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
    )


def units_from(commands: Iterable[Deferred]) -> list[Unit]:
    """Return the units that were kept, in order of arrival."""
    ordered = sorted(commands, key=lambda command: (command.first_seen, command.id))
    return [_unit(index, command) for index, command in enumerate(ordered)]


def _unit(index: int, kept: Deferred) -> Unit:
    message = Message(kept.task, kept.task_id, kept.message_key, headers=json.loads(kept.headers))
    return Unit(message, index, kept.position, _read(kept.request), kept)


def _written(request: Request | Unidentified) -> str:
    match request:
        case Invalid():
            return f'{{"invalid":{_INVALID.dump_json(request).decode()}}}'
        case Unidentified():
            return f'{{"unidentified":{_UNIDENTIFIED.dump_json(request).decode()}}}'
        case _:
            return canonical({"command": as_fields(request)})


def _read(text: str) -> Request | Unidentified:
    [(kind, fields)] = json.loads(text).items()
    if kind == "invalid":
        return _INVALID.validate_json(json.dumps(fields))
    if kind == "unidentified":
        return _UNIDENTIFIED.validate_json(json.dumps(fields))
    command: dict[str, Any] = fields
    return MODELS[Kind(command["command"])].model_validate(command)
