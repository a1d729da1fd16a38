"""From what a message says to a command, or to the reason why it is none. Never raises for bad input."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from itertools import islice
from typing import Annotated, Any, ClassVar, Final, TypeVar
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from enrollment.commands import (
    MAX_COMMANDS,
    MAX_COURSES,
    MAX_ID,
    MODELS,
    AnyCourses,
    Command,
    Id,
    IssuedAt,
    Kind,
    Source,
    Withdraw,
    format_time,
    parse_uuid,
)
from enrollment.errors import SEND_IT_AGAIN, DeadLetterCode, ErrorCode, Rejection

_MAX_NAMED: Final = 10  # fields named in one message; the rest is counted
_MAX_FIELDS: Final = 32  # foreign ones of a command that are looked at: each fault takes a kilobyte
_MAX_NAME: Final = 64  # characters of a foreign field name that are repeated back
_POSITIONAL: Final = ("student_id", "course_ids")
_TIMES: Final = ("issued_at", "effective_at", "wait_until")
_ID_RULE: Final = f"an integer from 1 to {MAX_ID}"

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Invalid:
    """A message with a usable command id that is not a valid command. What it did not say, or not well, is None."""

    effective_at: ClassVar[None] = None
    command_id: UUID
    command: Kind | None
    student_id: int | None
    course_ids: tuple[int, ...] | None
    issued_at: datetime | None
    source: str | None
    rejection: Rejection
    payload: str  # canonical JSON of what was said


@dataclass(frozen=True, slots=True)
class Unidentified:
    """A message, or one item of an `apply` message, without a usable command id: it can have no event."""

    code: DeadLetterCode
    message: str
    payload: str


Request = Command | Invalid


def parse_single(
    kind: Kind, command_id: UUID, args: Sequence[Any], kwargs: Mapping[str, Any], eta: datetime | None = None
) -> Request:
    """Read the arguments of one of the three single commands; its Celery task id is the command id.

    `eta`, of the message, is what a command without `effective_at` takes for it.
    """
    read = _arguments(_POSITIONAL, kind, command_id, args, kwargs)
    return read if isinstance(read, Invalid) else _validate(MODELS[kind], kind, command_id, _with(eta, read))


def parse_withdraw(
    command_id: UUID, args: Sequence[Any], kwargs: Mapping[str, Any], eta: datetime | None = None
) -> Withdraw | Invalid:
    """Read the arguments of a withdraw; its Celery task id is its own command id. With an `eta` it is invalid."""
    read = _arguments(("target",), Kind.WITHDRAW, command_id, args, kwargs)
    if eta is not None and not isinstance(read, Invalid):
        faults = {"eta": "a withdraw takes effect at once, so its message has neither eta nor countdown"}
        return _invalid(Kind.WITHDRAW, command_id, read, faults, canonical(read))
    return read if isinstance(read, Invalid) else _validate(Withdraw, Kind.WITHDRAW, command_id, read)


def _arguments(
    positional: Sequence[str], kind: Kind, command_id: UUID, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> dict[str, Any] | Invalid:
    said: dict[str, Any] = dict(zip(positional, args, strict=False))
    faults: dict[str, str] = {}
    if len(args) > len(positional):
        faults["args"] = f"only {' and '.join(positional)} may be positional, {len(args)} were given"
    for name in said.keys() & kwargs.keys():
        faults[name] = f"{name} is given twice, by position and by name"
    for name in ("command_id", "command"):
        if name in kwargs:
            faults[name] = f"{name} is not a field of this message: the task id and the task name say it"
    said.update(kwargs)
    if not faults:
        return said
    return _invalid(kind, command_id, said, faults, canonical([list(args), dict(kwargs)]))


def _with(eta: datetime | None, said: dict[str, Any]) -> dict[str, Any]:
    return said if eta is None or said.get("effective_at") is not None else {**said, "effective_at": format_time(eta)}


def parse_many(
    args: Sequence[Any], kwargs: Mapping[str, Any], eta: datetime | None = None
) -> list[Request | Unidentified]:
    """Read the arguments of an `apply` message: each command by itself, in the order of the message.

    A message whose `commands` is not a list of 1 to 1,000 comes back as a single `Unidentified`.
    """
    commands = kwargs.get("commands")
    fault = None
    if args or kwargs.keys() - {"commands"}:
        fault = "`apply` takes one argument, by name: commands."
    elif not isinstance(commands, list) or not 1 <= len(commands) <= MAX_COMMANDS:
        fault = f"commands must be a list of 1 to {MAX_COMMANDS} commands."
    if fault or not isinstance(commands, list):
        return [Unidentified(DeadLetterCode.INVALID_COMMAND, fault or "", canonical([list(args), dict(kwargs)]))]
    return [parse_item(item, eta) for item in commands]


def parse_item(item: object, eta: datetime | None = None) -> Request | Unidentified:
    """Read one command of an `apply` message."""
    if not isinstance(item, dict):
        return Unidentified(
            DeadLetterCode.INVALID_COMMAND,
            "A command must be an object with a command_id and a command.",
            canonical(item),
        )
    name = item.get("command")
    model = MODELS.get(name) if isinstance(name, str) else None  # type: ignore[call-overload]
    if model is not None and eta is None and len(item) <= _MAX_FIELDS:
        try:  # model_validate, without its own layer, which takes a fifth as long again
            command: Command = model.__pydantic_validator__.validate_python(item)
        except ValidationError:
            pass  # what is wrong is told below
        else:
            return command
    try:
        command_id = parse_uuid(item.get("command_id"))
    except ValueError:
        return Unidentified(DeadLetterCode.COMMAND_ID_MISSING, "command_id is missing or not a UUID.", canonical(item))
    said = {name: value for name, value in item.items() if name not in ("command_id", "command")}
    if model is not None:
        return _validate(model, model.kind, command_id, _with(eta, said))
    fault = f"command must be one of {', '.join(MODELS)}"
    return _invalid(None, command_id, said, {"command": fault}, canonical(item))


def content_hash(request: Request | Withdraw) -> bytes:
    """16 bytes that are equal for equal content, whatever the order and the repeats of its courses.

    Stored with each command, to tell a repeat from another command under the same id. A field that was not said leaves
    no trace, so a field added later does not change the hash of what was said before.
    """
    if isinstance(request, Invalid):
        text = f"invalid {request.command} {request.payload}"
    elif isinstance(request, Withdraw):
        text = f"withdraw {request.target} from {request.source}"
    else:
        text = f"{request.command} {request.student_id} {sorted(request.course_ids)}"
        if request.issued_at is not None:
            text += f" at {format_time(request.issued_at)}"
        if request.source is not None:
            text += f" from {request.source}"
        if request.effective_at is not None:
            text += f" effective {format_time(request.effective_at)}"
        if request.wait_until is not None:
            text += f" waits until {format_time(request.wait_until)}"
    return _digest(text)


def hash_with_time(said: str, issued_at: datetime, source: str | None) -> bytes:
    """Return the content hash of a command that said `issued_at`, and nothing else that has to do with time.

    `said`: its kind, its student and its courses, ascending.
    """
    text = f"{said} at {format_time(issued_at)}"
    return _digest(text if source is None else f"{text} from {source}")


def hash_without_times(kind: Kind, student_id: int, course_ids: Sequence[int], source: str | None) -> bytes:
    """Return what stands for the content of a command whose times nobody knows any more: it was restored."""
    return b"~" + _digest(f"{kind} {student_id} {sorted(course_ids)} from {source}")


def _digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


def _validate(model: type[M], kind: Kind, command_id: UUID, said: dict[str, Any]) -> M | Invalid:
    looked_at = said
    if len(said) > _MAX_FIELDS:
        names = (*(said.keys() & model.model_fields.keys()), *islice(said, _MAX_FIELDS))
        looked_at = {name: said[name] for name in names}
    try:
        return model.model_validate({**looked_at, "command_id": command_id})
    except ValidationError as error:
        return _invalid(kind, command_id, said, _faults(kind, error), canonical(said))


def _faults(kind: Kind, error: ValidationError) -> dict[str, str]:
    """One sentence per field, in the order in which the fields were found to be wrong."""
    faults: dict[str, str] = {}
    for detail in error.errors(include_url=False, include_context=False, include_input=False):
        if not detail["loc"]:  # a name that is not UTF-8 (a lone surrogate) has no place of its own
            faults.setdefault("fields", "a field has a name that is not valid Unicode")
            continue
        field = str(detail["loc"][0])[:_MAX_NAME]
        if detail["type"] == "missing":
            fault = f"{field} is missing; it must be {_rule(kind, field)}"
        elif detail["type"] == "extra_forbidden":
            fault = f"{field} is not a field of this command"
        else:
            fault = f"{field} must be {_rule(kind, field)}"
        faults.setdefault(field, fault)
    return faults


def _rule(kind: Kind, field: str) -> str:
    least = 0 if kind is Kind.REPLACE else 1
    return {
        "student_id": _ID_RULE,
        "course_ids": f"a list of {least} to {MAX_COURSES} course ids, each {_ID_RULE}",
        **dict.fromkeys(_TIMES, "an RFC 3339 time with an offset, such as 2026-01-31T09:30:00Z"),
        "target": "the id of a command, a UUID",
        "source": "a string of 1 to 64 of the characters A-Z a-z 0-9 . _ : / -",
    }.get(field, "valid")


def _invalid(
    kind: Kind | None, command_id: UUID, said: Mapping[str, Any], faults: Mapping[str, str], payload: str
) -> Invalid:
    named = list(faults.values())[:_MAX_NAMED]
    if len(faults) > _MAX_NAMED:
        named.append(f"and {len(faults) - _MAX_NAMED} more fields are wrong")
    message = "This is not a valid command: " + "; ".join(named) + f". Correct it and {SEND_IT_AGAIN}."
    return Invalid(
        command_id=command_id,
        command=kind,
        student_id=_salvage(_STUDENT_ID, said.get("student_id")),
        course_ids=_salvage(_COURSE_IDS, said.get("course_ids")),
        issued_at=_salvage(_ISSUED_AT, said.get("issued_at")),
        source=_salvage(_SOURCE, said.get("source")),
        rejection=Rejection(
            code=ErrorCode.INVALID_COMMAND,
            message=_storable(message),
            fields=tuple(map(_storable, faults))[:_MAX_NAMED],
        ),
        payload=payload,
    )


_STRICT: Final = ConfigDict(strict=True)
_STUDENT_ID: Final = TypeAdapter[int](Id, config=_STRICT)
_COURSE_IDS: Final = TypeAdapter[tuple[int, ...]](Annotated[AnyCourses, Field()], config=_STRICT)
_ISSUED_AT: Final = TypeAdapter[datetime](IssuedAt, config=_STRICT)
_SOURCE: Final = TypeAdapter[str](Source, config=_STRICT)


def _salvage(adapter: TypeAdapter[T], value: object) -> T | None:
    try:
        return adapter.validate_python(value)
    except ValidationError:
        return None


def canonical(value: object) -> str:
    """JSON text, ASCII alone: what PostgreSQL's text cannot hold (U+0000, lone surrogates) stays escaped."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), default=repr)
    except (ValueError, TypeError, RecursionError) as error:  # long integers, keys of several kinds, deep nesting
        return json.dumps(f"cannot be written as JSON: {error}")


def _storable(text: str) -> str:
    """Foreign names with what neither UTF-8 nor PostgreSQL can hold made visible."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")
