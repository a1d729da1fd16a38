"""Dead letters out of messages that never become commands: the whole message is kept, whatever state it is in."""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from uuid import UUID

from enrollment.commands import uuid_or_none
from enrollment.errors import DeadLetterCode
from enrollment.names import KINDS
from enrollment.parsing import Unidentified, content_hash
from models.dead_letters import NewDeadLetter
from tasks.messages import Message, units_of
from worker.consume.inflating import inflate
from worker.transport.envelope import Garbage, parse


def dead_letter_of_message(
    headers: object, body: object, *, key: str, code: DeadLetterCode, reason: str
) -> NewDeadLetter:
    """Return the dead letter of a message whose envelope could be read."""
    named: Mapping[str, Any] = headers if isinstance(headers, Mapping) else {}
    task = named.get("task")
    if code is not DeadLetterCode.UNDECODABLE_BODY:  # else it was tried before
        with suppress(ValueError):
            body = inflate(body, named)
    return NewDeadLetter(
        key=f"delivery {key}",
        code=code,
        message=reason,
        payload=_text(body),
        command_id=uuid_or_none(named.get("id")),
        task=task if isinstance(task, str) else None,
        headers=named,
        contents=_contents(task, named, body),
    )


def dead_letter_of_entry(
    raw: bytes, *, key: str, code: DeadLetterCode, reason: str, readable: bool = True
) -> NewDeadLetter:
    """Return the dead letter of an entry of a queue, which may be a message after all if it is safe to look."""
    if not readable:
        return dead_letter_of_message(None, raw, key=key, code=code, reason=reason)
    try:
        payload = parse(raw)
    except Garbage:
        return dead_letter_of_message(None, raw, key=key, code=code, reason=reason)
    return dead_letter_of_message(payload["headers"], payload["body"], key=key, code=code, reason=reason)


def _contents(task: object, headers: Mapping[str, Any], body: object) -> list[tuple[UUID, bytes]]:
    """Return id and hash of each command in a message of nothing else: it may have been processed before."""
    if not isinstance(task, str) or task not in KINDS or not isinstance(body, str | bytes):
        return []
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return []
    match decoded:
        case [list() | None as args, dict() | None as kwargs, *_]:
            units = units_of([Message(task, str(headers.get("id")), "", args or (), kwargs or {}, headers)])
            requests = [unit.request for unit in units if not isinstance(unit.request, Unidentified)]
            if len(requests) == len(units):
                return [(request.command_id, content_hash(request)) for request in requests]
    return []


def _text(body: object) -> str:
    return body.decode(errors="backslashreplace") if isinstance(body, bytes) else str(body)
