"""From a delivery to a message of the use case: decoded here and not by kombu, whose hooks anyone could call."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final, NoReturn

from pydantic_core import from_json

from enrollment.errors import DeadLetterCode
from tasks.messages import Message
from worker.consume.inflating import inflate
from worker.transport import Channel
from worker.transport.limits import TOO_MANY_VALUES, many_values

CONTENT_TYPE: Final = "application/json"
_ENCODINGS: Final = ("utf-8", "utf8", "us-ascii", "ascii", "binary", "")


class Refused(Exception):
    """The message is none that a task could be run with."""

    def __init__(self, code: DeadLetterCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


def decode_message(task: str, delivery: Any) -> tuple[Message, int]:
    """Return the message in a delivery whose headers are known to be sound, and the bytes of its body. Raises Refused.

    Callbacks, errbacks, chains and chords in the third part of the body are not run, and no time limit of the sender's
    is heeded: a producer can send commands and nothing else.
    """
    if delivery.content_type != CONTENT_TYPE:
        raise _undecodable(f"its content type is {_shown(delivery.content_type)}, not {CONTENT_TYPE}")
    if str(delivery.content_encoding or "").lower() not in _ENCODINGS:
        raise _undecodable(f"its content encoding is {_shown(delivery.content_encoding)}, not utf-8")
    try:
        text = _bytes(inflate(delivery.body, delivery.headers))
        body = _decode(text)
    except (ValueError, RecursionError, TypeError) as error:
        raise _undecodable(str(error)[:200] or type(error).__name__) from error
    match body:
        case [list() | None as args, dict() | None as kwargs, *_]:
            message = Message(
                task=task,
                task_id=delivery.headers["id"],
                key=key_of(delivery),
                args=args or (),
                kwargs=kwargs or {},
                headers=delivery.headers,
            )
            return message, len(text)
    raise _undecodable("it is not [args, kwargs, embed]")


def key_of(delivery: Any) -> str:
    """Return what stays the same when this message is delivered again."""
    if isinstance(delivery.channel, Channel):
        return str(delivery.delivery_tag)
    body = delivery.body if isinstance(delivery.body, bytes) else str(delivery.body).encode(errors="replace")
    return sha256(f"{delivery.headers.get('id')} ".encode(errors="replace") + body).hexdigest()


def expired(headers: Mapping[str, Any], now: datetime) -> bool:
    """Tell whether the sender wanted this message dropped by now. Raises Refused when it does not say when."""
    value = headers.get("expires")
    if value is None:
        return False
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise Refused(DeadLetterCode.NOT_A_MESSAGE, f"Its header `expires` is no time: {_shown(value)}.") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) < now


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _bytes(body: object) -> bytes:
    if isinstance(body, str):
        return body.encode("utf-8", "surrogatepass")
    if not isinstance(body, bytes):
        raise TypeError("it is neither text nor bytes")
    return body


def _decode(body: bytes) -> Any:
    """Decode a body. What the fast decoder refuses, such as a lone surrogate, is for Python's own to judge."""
    if many_values(body):
        raise ValueError(TOO_MANY_VALUES)
    try:
        return from_json(body, allow_inf_nan=False, cache_strings="keys")
    except ValueError:
        return json.loads(body, parse_constant=_no_number)


def _undecodable(reason: str) -> Refused:
    return Refused(DeadLetterCode.UNDECODABLE_BODY, f"The body cannot be decoded: {reason}.")


def _shown(value: object) -> str:
    return repr(value)[:100]
