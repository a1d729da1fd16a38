"""Messages of the command tasks, as they come off the queue: decoded, not yet judged."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from enrollment.commands import Kind, Withdraw, as_fields, parse_time, uuid_or_none
from enrollment.errors import DeadLetterCode
from enrollment.fold import Record, Verdict
from enrollment.names import KINDS
from enrollment.parsing import (
    Invalid,
    Request,
    Unidentified,
    canonical,
    content_hash,
    parse_many,
    parse_single,
    parse_withdraw,
)
from enrollment.traces import trace_of
from models.dead_letters import NewDeadLetter
from models.deferred import Deferred


@dataclass(slots=True)  # frozen, these two would take three times as long to make
class Message:
    """One message. `key` is its identity as a delivery: equal when the same message is delivered again."""

    task: str
    task_id: str
    key: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Unit:
    """What is applied, split off or kept as one: a single command, or one item of an `apply` message."""

    message: Message
    index: int  # of the message in its batch
    position: int  # of the command in its message
    request: Request | Withdraw | Unidentified
    kept: Deferred | None = None  # where it waited, if it did

    @property
    def arrived(self) -> tuple[int, int]:
        """Its place in the order of arrival."""
        return self.index, self.position

    def dead_letter(self, code: DeadLetterCode, reason: str) -> NewDeadLetter:
        """Return the dead letter that keeps this unit. Its key names the content where there is a command id."""
        request = self.request
        if isinstance(request, Unidentified):
            command_id, payload, contents = None, request.payload, []
            key = f"delivery {self.message.key} {self.position}"
        else:
            command_id, content = request.command_id, content_hash(request)
            contents = [(command_id, content)]
            payload = request.payload if isinstance(request, Invalid) else canonical(as_fields(request))
            key = f"command {command_id} {content.hex()} {code}"
        return NewDeadLetter(
            key=key,
            code=code,
            message=reason,
            payload=payload,
            command_id=command_id,
            task=self.message.task,
            headers=self.message.headers,
            contents=contents,
        )


def student_of(unit: Unit) -> int:
    """Return the student that a unit is about, 0 where it does not say."""
    return 0 if isinstance(unit.request, Unidentified) else unit.request.student_id or 0


def traced(unit: Unit, verdict: Verdict) -> Verdict:
    """Return a verdict whose event goes on with the trace of the message."""
    if not isinstance(verdict, Record) or "traceparent" not in unit.message.headers:
        return verdict
    return verdict._replace(trace=trace_of(unit.message.headers))


def units_of(messages: Sequence[Message]) -> list[Unit]:
    """Return the units of a batch in order of arrival."""
    return [unit for index, message in enumerate(messages) for unit in _units(index, message)]


def _units(index: int, message: Message) -> Iterator[Unit]:
    kind = KINDS[message.task]
    command_id = uuid_or_none(message.task_id)
    try:
        eta = eta_of(message.headers)
    except ValueError:
        fault = "Its header `eta` is no time; leave it out, or say effective_at in the command."
        yield _refused(index, message, DeadLetterCode.NOT_A_MESSAGE, fault)
        return
    if kind is None:
        for position, request in enumerate(parse_many(message.args, message.kwargs, eta)):
            yield Unit(message, index, position, request)
    elif command_id is None:
        fault = "The task id, which is the command id, is not a UUID."
        yield _refused(index, message, DeadLetterCode.COMMAND_ID_MISSING, fault)
    elif kind is Kind.WITHDRAW:
        yield Unit(message, index, 0, parse_withdraw(command_id, message.args, message.kwargs, eta))
    else:
        yield Unit(message, index, 0, parse_single(kind, command_id, message.args, message.kwargs, eta))


def _refused(index: int, message: Message, code: DeadLetterCode, fault: str) -> Unit:
    payload = canonical([list(message.args), dict(message.kwargs)])
    return Unit(message, index, 0, Unidentified(code, fault, payload))


def eta_of(headers: Mapping[str, Any]) -> datetime | None:
    """Return the `eta` in Celery's headers; without an offset it is UTC. Raises ValueError."""
    header = headers.get("eta")
    if header is None:
        return None
    if not isinstance(header, str):
        raise ValueError("not a text")  # noqa: TRY004 (what a sender says, not what we do)
    moment = datetime.fromisoformat(header)
    return parse_time(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
