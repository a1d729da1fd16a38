"""How messages leave: one connection to the broker, patient for a while, and the headers of Celery's protocol."""

import os
import random
import socket
from collections.abc import Mapping
from time import monotonic, sleep
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from enrollment.errors import EnrollmentError
from enrollment.names import BULK_QUEUE, QUEUE

if TYPE_CHECKING:
    from kombu import Connection, Producer

PATIENCE: Final = 10.0  # seconds after which a message that the broker does not take is an error
_ANSWER: Final = 5.0  # seconds for the broker to answer once
_PAUSES: Final = (0.05, 1.0)  # seconds between attempts: the first, and the longest

# Options of kombu's transports; each knows its own names only.
_REDIS: Final = {
    "socket_connect_timeout": 2.0,
    "socket_timeout": _ANSWER,
    "socket_keepalive": True,
    "client_name": "enrollment-producer",
}
_AMQP: Final = {"confirm_publish": True, "read_timeout": _ANSWER, "write_timeout": _ANSWER}


class BrokerAway(EnrollmentError):
    """The broker did not take a message. It may have `command_ids` all the same: send them again as they were."""

    def __init__(self, broker: str, seconds: float, reason: str, command_ids: tuple[UUID, ...]) -> None:
        super().__init__(
            f"The broker at {broker} did not take the message within {seconds:.0f} s ({reason}). See that it runs and "
            "can be reached, then send again; a command that did arrive takes effect once all the same."
        )
        self.command_ids = command_ids


class Outlet:
    """One connection to the broker: opened for the first message, anew after an error and in a forked process."""

    def __init__(self, url: str, patience: float) -> None:
        self._url = url
        self._patience = patience
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._pid = 0

    def publish(self, queue: str, headers: Mapping[str, Any], body: str, command_ids: tuple[UUID, ...]) -> None:
        """Put one message on a queue. Raises BrokerAway."""
        deadline = monotonic() + self._patience
        pause, longest = _PAUSES
        while True:
            connection = self._connect()
            errors: tuple[type[BaseException], ...] = (
                OSError,
                *connection.connection_errors,
                *connection.channel_errors,
            )
            try:
                return self._publish(connection, queue, headers, body)
            except errors as error:
                self.close()
                if monotonic() + pause > deadline:
                    raise BrokerAway(_without_password(self._url), self._patience, _line(error), command_ids) from error
            sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - producers that lost one broker shall not return as one
            pause = min(2 * pause, longest)

    def close(self) -> None:
        """Hang up, whatever state the connection is in."""
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None and self._pid == os.getpid():
            connection.release()

    def _connect(self) -> "Connection":
        """Return the connection; nothing is sent to the broker yet."""
        from kombu import Connection  # noqa: PLC0415 - a process that only may send does not pay for it

        if self._connection is None or self._pid != os.getpid():
            self.close()
            options = _AMQP if urlsplit(self._url).scheme.startswith("amqp") else _REDIS
            self._pid = os.getpid()
            self._connection = Connection(self._url, connect_timeout=_ANSWER, transport_options=dict(options))
        return self._connection

    def _publish(self, connection: "Connection", queue: str, headers: Mapping[str, Any], body: str) -> None:
        from kombu import Producer, Queue  # noqa: PLC0415 - as above

        if self._producer is None:
            channel = connection.channel()
            for name in (QUEUE, BULK_QUEUE):  # AMQP drops, without a word, what is sent to a queue that is not there
                Queue(name, channel=channel).queue_declare()
            self._producer = Producer(channel)
        self._producer.publish(
            body,
            routing_key=queue,
            exchange="",
            delivery_mode=2,  # persistent
            content_type="application/json",
            content_encoding="utf-8",
            headers=dict(headers),
            correlation_id=headers["id"],
            reply_to="",
            confirm_timeout=_ANSWER,
        )


def headers_of(task: str, task_id: str, about: str) -> dict[str, Any]:
    """Return the headers of Celery's message protocol, version 2; no student ids, for monitors show them."""
    return {
        "lang": "py",
        "task": task,
        "id": task_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": task_id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": about,
        "origin": f"gen{os.getpid()}@{socket.gethostname()}",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
    }


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
