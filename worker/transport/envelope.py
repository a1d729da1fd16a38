"""Entries of a queue as they come: read without trust, so that nothing that anyone pushes can stop a worker."""

import json
from binascii import a2b_base64
from collections.abc import Mapping
from typing import Any, Final, Protocol

from kombu.transport import virtual
from pydantic_core import from_json

from enrollment.errors import DeadLetterCode
from worker.transport.limits import MOST_ID, TOO_MANY_VALUES, many_values

_PLAIN: Final = (None, "", "utf-8", "UTF-8")


class Garbage(Exception):
    """The entry is not a Celery message."""

    def __init__(self, code: DeadLetterCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


class OnGarbage(Protocol):
    """Keeps what cannot be delivered, and acknowledges it when it is kept. If this raises, it comes again."""

    def __call__(self, raw: bytes, code: DeadLetterCode, message: str, tag: str, *, readable: bool = True) -> None: ...


class Delivery(virtual.Message):
    """A message that was claimed: kombu's own, which takes four times as long to make out of the same."""

    def __init__(self, payload: dict[str, Any], channel: Any, tag: str, queue: str) -> None:
        """Take what `parse` returns, and the delivery tag and the queue, which are ours to say."""
        properties = payload.get("properties") or {}
        info = properties.get("delivery_info")
        self._raw = payload
        self._state = "RECEIVED"
        self._decoded_cache = None
        self.accept = None
        self.channel = channel
        self.delivery_tag = tag
        self.delivery_info = {"exchange": "", "routing_key": queue, **(info if isinstance(info, dict) else {})}
        self.properties = properties
        self.headers = payload["headers"]
        self.body = payload["body"]
        self.content_type = payload.get("content-type")
        self.content_encoding = payload.get("content-encoding")


def parse(raw: bytes) -> dict[str, Any]:
    """Return the message in an entry, its body decoded to bytes. Raises Garbage."""
    if many_values(raw):
        raise _not_a_message(TOO_MANY_VALUES)
    try:
        payload = _json(raw)
    except (ValueError, RecursionError) as error:
        raise _not_a_message(f"it is not JSON ({short(error)})") from error
    if not isinstance(payload, dict):
        raise _not_a_message(f"it is a JSON {type(payload).__name__}, not an object")
    fault = fault_in_headers(payload.get("headers"))
    if fault:
        raise _not_a_message(fault)
    properties = payload.get("properties") or {}
    if not isinstance(properties, dict):
        raise _not_a_message("its properties are not an object")
    payload["body"] = _body(payload.get("body"), properties.get("body_encoding"))
    return payload


def _json(raw: bytes) -> Any:
    """Decode an entry. What the fast decoder refuses, such as a lone surrogate, is for Python's own to judge."""
    try:
        return from_json(raw, cache_strings="keys")
    except ValueError:
        return json.loads(raw.decode())


def fault_in_headers(headers: object) -> str | None:
    """Return what keeps these headers from being those of a task message, protocol 2."""
    if not isinstance(headers, Mapping):
        return "it has no headers"
    for name in ("id", "task"):
        if not isinstance(headers.get(name), str) or not headers[name]:
            return f"its header `{name}` is missing or not text"
        if len(headers[name]) > MOST_ID:
            return f"its header `{name}` has more than {MOST_ID} characters"
    return None


def _body(body: object, encoding: object) -> bytes:
    if not isinstance(body, str):
        raise _undecodable("it is missing or not text")
    try:
        if encoding == "base64":
            return a2b_base64(body)
        if encoding in _PLAIN:
            return body.encode()
    except ValueError as error:
        raise _undecodable(short(error)) from error
    raise _undecodable("its body_encoding is neither base64 nor utf-8")


def _not_a_message(reason: str) -> Garbage:
    return Garbage(DeadLetterCode.NOT_A_MESSAGE, f"The entry is not a Celery message of protocol 2: {reason}.")


def _undecodable(reason: str) -> Garbage:
    return Garbage(DeadLetterCode.UNDECODABLE_BODY, f"The body cannot be decoded: {reason}.")


def short(error: Exception) -> str:
    """Return what an error says, as a dead letter tells it."""
    return f"{type(error).__name__}: {str(error)[:200]}"
