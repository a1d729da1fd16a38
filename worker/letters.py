"""Dead letters out of messages that never become commands: the whole message is kept, whatever state it is in."""

import json
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from enrollment.commands import parse_uuid
from enrollment.errors import DeadLetterCode
from enrollment.parsing import content_hash, parse_single
from models.dead_letters import NewDeadLetter
from tasks.messages import KINDS
from worker.transport.entries import Garbage, parse


def letter_of_message(headers: object, body: object, *, key: str, code: DeadLetterCode, reason: str) -> NewDeadLetter:
    """Return the dead letter of a message whose envelope could be read."""
    named: Mapping[str, Any] = headers if isinstance(headers, Mapping) else {}
    task = named.get("task")
    return NewDeadLetter(
        key=f"delivery {key}",
        code=code,
        message=reason,
        payload=_text(body),
        command_id=_command_id(named.get("id")),
        task=task if isinstance(task, str) else None,
        headers=named,
        content=_content(task, named.get("id"), body),
    )


def letter_of_entry(raw: bytes, *, key: str, code: DeadLetterCode, reason: str) -> NewDeadLetter:
    """Return the dead letter of an entry of a queue, which may be a message after all."""
    try:
        payload = parse(raw, queue="", tag=key)
    except Garbage:
        return letter_of_message(None, raw, key=key, code=code, reason=reason)
    return letter_of_message(payload["headers"], payload["body"], key=key, code=code, reason=reason)


def _content(task: object, task_id: object, body: object) -> bytes | None:
    """Return the hash of the command in a message, if there is one: it may have been processed before."""
    command_id = _command_id(task_id)
    if command_id is None or not isinstance(task, str) or task not in KINDS or not isinstance(body, str | bytes):
        return None
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    match said:
        case [list() | None as args, dict() | None as kwargs, *_]:
            return content_hash(parse_single(KINDS[task], command_id, args or (), kwargs or {}))
    return None


def _text(body: object) -> str:
    return body.decode(errors="backslashreplace") if isinstance(body, bytes) else str(body)


def _command_id(task_id: object) -> UUID | None:
    try:
        return parse_uuid(task_id)
    except ValueError:
        return None
