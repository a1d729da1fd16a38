"""A producer: puts commands on the queue, one by one or many in one message, as any Celery client would.

    with Client("redis://broker:6379/0") as client:
        command_id = client.enroll(42, [101, 102], source="portal")
        with client.bulk() as bulk:
            for student_id in students:
                bulk.replace(student_id, [101])
        event = client.wait_for(command_id)

Sending the same command again, under its `command_id`, is always harmless: it takes effect once.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypedDict, Unpack
from uuid import UUID

from enrollment.addresses import is_redis
from enrollment.client.broker_connection import PATIENCE, BrokerConnection, OutgoingMessage
from enrollment.client.errors import InvalidCommand, NoEventsAddress
from enrollment.commands import MAX_COMMANDS, Command, Withdraw
from enrollment.ids import uuid7
from enrollment.names import APPLY, BULK_QUEUE, QUEUE, STREAM, TASKS
from enrollment.parsing import Invalid, Unidentified, parse_item, parse_withdraw

if TYPE_CHECKING:
    from enrollment.client.outcomes import Outcomes
    from enrollment.events import Event


OUTCOME: Final = 10.0  # seconds that `wait_for` waits; an idle worker needs some milliseconds
MAX_BYTES: Final = 512 * 1024  # of commands in one `apply` message; a worker holds a claim's messages in memory at once
_EMBED: Final = '{"callbacks":null,"errbacks":null,"chain":null,"chord":null}'
_BESIDE: Final = {"command", "command_id"}  # what the message of one command says beside its arguments


def read_command(fields: Mapping[str, Any]) -> Command:
    """Return the command that these fields (of an `apply` message) make. Raises InvalidCommand.

    One without `command_id` gets a new one, and one without either of `command_id` and `issued_at` is issued now. With
    an id of its own it is left as it is: a repeat must say the same.
    """
    given = dict(fields)
    for name, value in fields.items():
        if value is None:
            del given[name]
    if "command_id" not in given:
        given["command_id"] = uuid7()
        given.setdefault("issued_at", datetime.now(UTC))
    request = parse_item(given)
    if isinstance(request, Invalid):
        raise InvalidCommand(request.rejection.message, request.rejection.fields)
    if isinstance(request, Unidentified):
        raise InvalidCommand(request.message, ("command_id",))
    return request


class CommandFields(TypedDict, total=False):
    """The fields that a command may have besides student and courses."""

    issued_at: datetime | None  # when the producer decided; with an offset
    source: str | None  # who sends it: 1 to 64 of `A-Z a-z 0-9 . _ : / -`
    effective_at: datetime | None  # when it is to take effect; it is decided then
    wait_until: datetime | None  # until when a student or course that does not exist is waited for
    command_id: UUID | None  # to send the same command again


class Sender(ABC):
    """What takes commands: the three verbs, and `send` for a command that was made before."""

    def enroll(self, student_id: int, course_ids: Iterable[int], **fields: Unpack[CommandFields]) -> UUID:
        """Add these courses to the student's. Return the command's id. Raises InvalidCommand, BrokerAway."""
        return self._send_new("enroll", student_id, course_ids, fields)

    def unenroll(self, student_id: int, course_ids: Iterable[int], **fields: Unpack[CommandFields]) -> UUID:
        """Take these courses from the student's. Return the command's id. Raises InvalidCommand, BrokerAway."""
        return self._send_new("unenroll", student_id, course_ids, fields)

    def replace(self, student_id: int, course_ids: Iterable[int], **fields: Unpack[CommandFields]) -> UUID:
        """Make the student's courses exactly these; none is allowed. Return the command's id. Raises as `enroll`."""
        return self._send_new("replace", student_id, course_ids, fields)

    @abstractmethod
    def send(self, command: Command | Withdraw) -> UUID:
        """Send a command as it is; return its id. Raises BrokerAway."""

    def withdraw(self, target: UUID, *, source: str | None = None, command_id: UUID | None = None) -> UUID:
        """End a command that waits, or that has not come yet; return the id of the withdraw, which has an event, too.

        Raises InvalidCommand, BrokerAway.
        """
        said = {"target": target, **({} if source is None else {"source": source})}
        request = parse_withdraw(command_id or uuid7(), (), said)
        if isinstance(request, Invalid):
            raise InvalidCommand(request.rejection.message, request.rejection.fields)
        return self.send(request)

    def _send_new(self, command: str, student_id: int, course_ids: Iterable[int], fields: CommandFields) -> UUID:
        said = {"command": command, "student_id": student_id, "course_ids": list(course_ids), **fields}
        return self.send(read_command(said))


class Client(Sender):
    """Sends each command in a message of its own. Connects at the first one; for one thread at a time."""

    def __init__(
        self,
        broker_url: str,
        *,
        patience: float = PATIENCE,
        events_url: str | None = None,
        stream: str = STREAM,
        transport_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Send to the broker at `broker_url`; give up on a message after about `patience` seconds.

        Behind sentinels, or with `replicas` in the address, a message is taken when so many replicas have it.

        `transport_options` are kombu's, where the workers have others than the defaults (ENROLLMENT_BROKER_OPTIONS).
        `events_url` is the Redis of the event stream, where that is not the broker; only `wait_for` needs it.
        """
        self._broker = BrokerConnection(broker_url, patience, transport_options)
        self._events_url = events_url or broker_url
        self._stream = stream
        self._outcomes: Outcomes | None = None

    def send(self, command: Command | Withdraw) -> UUID:
        """Send a command as it is; return its id when the broker has it. Raises BrokerAway."""
        self._broker.publish(_message(command), (command.command_id,))
        return command.command_id

    def bulk(self, queue: str = BULK_QUEUE) -> "Bulk":
        """Return what sends many commands in few messages; `queue` is for a few that are not to wait behind many."""
        return Bulk(self._broker, queue)

    def wait_for(self, command_id: UUID, seconds: float = OUTCOME, *, final: bool = False) -> "Event":
        """Return the event of a command: applied, rejected, withdrawn, or that it waits.

        With `final`, that it waits is passed over. Raises NoEventsAddress, NoOutcomeYet.
        When it did not come, wait again, or send the command again under its id: it takes effect once all the same.
        """
        from enrollment.client.outcomes import Outcomes  # noqa: PLC0415 - a producer that never asks does not pay for it

        if not is_redis(self._events_url):
            raise NoEventsAddress
        if self._outcomes is None:
            self._outcomes = Outcomes(self._events_url, stream=self._stream)
        return self._outcomes.wait_for(command_id, seconds, final=final)

    def close(self) -> None:
        """Hang up. Everything was sent already."""
        self._broker.close()
        if self._outcomes is not None:
            self._outcomes.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Bulk(Sender):
    """Gathers commands into `apply` messages; what is left over leaves at the end of the `with` block.

    A block that ends with an error sends nothing more: `sent` commands, in order, have reached the broker.
    """

    def __init__(self, broker: BrokerConnection, queue: str = BULK_QUEUE) -> None:
        self.sent = 0
        self.messages = 0
        self._broker = broker
        self._queue = queue
        self._items: list[str] = []
        self._ids: list[UUID] = []
        self._bytes = 0

    @property
    def waiting(self) -> int:
        """How many commands have been taken and not yet sent."""
        return len(self._items)

    def send(self, command: Command | Withdraw) -> UUID:
        """Take a command; return its id. It leaves with the next message, a withdraw at once. Raises BrokerAway."""
        if command.command == "withdraw":
            self._broker.publish(_message(command), (command.command_id,))
            return command.command_id
        item = command.model_dump_json(exclude_none=True)
        if self._items and (len(self._items) == MAX_COMMANDS or self._bytes + len(item) > MAX_BYTES):
            self.flush()
        self._items.append(item)
        self._ids.append(command.command_id)
        self._bytes += len(item)
        return command.command_id

    def flush(self) -> None:
        """Send what was taken. Raises BrokerAway; then it is still waiting, and may be tried again."""
        if not self._items:
            return
        self._broker.publish(_apply(self._queue, self._items), tuple(self._ids))
        self.sent += len(self._items)
        self.messages += 1
        self._items, self._ids, self._bytes = [], [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.flush()


def outgoing(commands: Sequence[Command | Withdraw]) -> OutgoingMessage:
    """Return the message that sends these: one by itself, more in one `apply` message, none of them a withdraw."""
    if len(commands) == 1:
        return _message(commands[0])
    return _apply(QUEUE, [command.model_dump_json(exclude_none=True) for command in commands])


def _apply(queue: str, items: Sequence[str]) -> OutgoingMessage:
    body = f'[[],{{"commands":[{",".join(items)}]}},{_EMBED}]'
    return OutgoingMessage(queue, APPLY, str(uuid7()), f"<{_number(len(items), 'command')}>", body)


def _message(command: Command | Withdraw) -> OutgoingMessage:
    about = command.target if command.command == "withdraw" else _number(len(command.course_ids), "course")
    # model_dump_json, without its own layer, which takes a third as long again
    said = command.__pydantic_serializer__.to_json(command, exclude_none=True, exclude=_BESIDE).decode()
    body = f"[[],{said},{_EMBED}]"
    return OutgoingMessage(QUEUE, TASKS[command.kind], str(command.command_id), f"<{about}>", body)


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"
