"""The queues as RabbitMQ has them: declared as they have to be, or one sentence that says why not."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import structlog
from amqp.exceptions import NotFound, PreconditionFailed
from kombu import Connection, Queue

from enrollment.errors import EnrollmentError
from enrollment.names import QUEUE_ARGUMENTS

_TYPE: Final = "x-queue-type"
_ARGUMENT: Final = re.compile("inequivalent arg '([^']+)'")

log = structlog.get_logger(__name__)


class QueueRefused(EnrollmentError):
    """A queue is there, and it is none that survives the loss of a node."""

    def __init__(self, queue: str) -> None:
        super().__init__(
            f"The queue {queue} is on RabbitMQ as a classic queue, and no queue changes its type: empty it with the "
            f"workers that have it (or move its messages with a shovel), delete it with `rabbitmqctl delete_queue "
            f"{queue}`, and start again; a quorum queue is then made."
        )


def declare(connection: Connection, queues: Iterable[Any]) -> None:
    """Declare these as quorum queues; one that is so already keeps whatever else it was given.

    Raises QueueRefused, and what kombu raises.
    """
    for queue in queues:
        queue.no_declare = False
        other = _other_argument(connection, queue)
        if other is not None:
            log.info("queue_declared_otherwise", queue=queue.name, argument=other)
            queue.no_declare = True  # of its own accord, kombu would be refused


def look(connection: Any, names: Iterable[str]) -> Iterator[tuple[str, int | None]]:
    """Yield how many messages wait in each of these queues; None where there is none. Raises QueueRefused."""
    for name in names:
        with connection.channel() as channel:  # one of its own: it is closed when something is refused
            try:
                count = channel.queue_declare(name, passive=True).message_count
            except NotFound:
                yield name, None
                continue
        _other_argument(connection, Queue(name, queue_arguments=dict(QUEUE_ARGUMENTS)))
        yield name, count


def _other_argument(connection: Any, queue: Any) -> str | None:
    """Declare a queue; return which argument of it RabbitMQ has otherwise, if any. Raises QueueRefused."""
    other = _refused(connection, queue, QUEUE_ARGUMENTS)
    if other is not None:  # the first that differs: there may be another
        worst = _refused(connection, queue, {_TYPE: QUEUE_ARGUMENTS[_TYPE]})
        if worst is not None and (worst == _TYPE or not worst.startswith("x-")):
            raise QueueRefused(queue.name)
    return other


def _refused(connection: Any, queue: Any, arguments: Mapping[str, Any]) -> str | None:
    with connection.channel() as channel:
        try:
            bound = queue(channel)
            bound.queue_arguments = dict(arguments)
            bound.queue_declare()
        except PreconditionFailed as error:
            found = _ARGUMENT.search(str(error.reply_text))
            return found[1] if found else _TYPE
    return None
