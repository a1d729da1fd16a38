"""How messages leave: one connection to the broker, patient for a while; and what they look like there."""

import os
import random
import re
import socket
from binascii import b2a_base64
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from json import JSONEncoder
from time import monotonic, sleep
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit
from uuid import UUID, uuid4

from enrollment.addresses import broker_url, is_rabbitmq, is_redis, kombu_url, replicas_of
from enrollment.client.errors import BrokerAway
from enrollment.client.tracing import is_traced, sending
from enrollment.names import BULK_QUEUE, QUEUE, QUEUE_ARGUMENTS
from enrollment.pauses import pauses

if TYPE_CHECKING:
    from kombu import Connection, Producer

    from enrollment.client.redis_list import RedisList

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
_ALARM: Final = "it blocks producers: an alarm, its memory or disk is short"
_AMQP: Final = {"confirm_publish": True, "read_timeout": _ANSWER, "write_timeout": _ANSWER}

_GAP: Final = re.compile(r"\{(\w+)\}")
_encode: Final = JSONEncoder().encode


class OutgoingMessage(NamedTuple):
    """A message of Celery's protocol, version 2. All but the body is free of quotes and backslashes."""

    queue: str
    task: str
    task_id: str
    about: str  # what monitors show of the arguments: no student ids
    body: str  # JSON
    trace: Mapping[str, str] = MappingProxyType({})  # headers of W3C Trace Context


Send = Callable[[Sequence[OutgoingMessage]], None]  # all of them on the queue of the first


class BrokerConnection:
    """One connection to the broker: opened for the first message, anew after an error and in a forked process."""

    def __init__(self, url: str, patience: float, options: Mapping[str, Any] | None = None) -> None:
        """Send to the broker at `url`; `options` are kombu's for its transport. Raises AddressError.

        Its `credential_provider` (redis-py's) is among them: it tells user and password for each new connection.

        An address of a broker other than Redis and RabbitMQ is for kombu to judge.
        """
        scheme, separator, rest = url.partition("://")
        url = f"{scheme.lower()}{separator}{rest}"
        url = broker_url(url, "The broker's address") if is_redis(url) or is_rabbitmq(url) else url
        self._urls = deque([url] if is_redis(url) else url.split(";"))  # nodes of one cluster are tried in turn
        self._shown = " or ".join(map(_without_password, self._urls))
        self._blocked = False  # RabbitMQ said that it takes no messages
        self._options = dict(options or {})
        self._patience = patience
        self._connection: Connection | None = None
        self._errors: tuple[type[BaseException], ...] = ()
        self._send: Send | None = None
        self._pid = 0

    def publish(self, message: OutgoingMessage, command_ids: tuple[UUID, ...]) -> None:
        """Put one message on its queue. Raises BrokerAway."""
        if not is_traced():  # as nearly always: spare it the context
            self.publish_all([message], command_ids)
            return
        with sending(message.task, message.queue, message.task_id, len(command_ids)) as trace:
            self.publish_all([message._replace(trace=trace)], command_ids)

    def publish_all(self, messages: Sequence[OutgoingMessage], command_ids: tuple[UUID, ...]) -> None:
        """Put messages, which say what trace they belong to, on one queue: in Redis all or none. Raises BrokerAway."""
        deadline = monotonic() + self._patience
        waits = pauses(*_PAUSES)
        while True:
            try:
                if self._send is None or self._pid != os.getpid():
                    self._send = _open(self._connect(), replicas_of(self._urls[0]))
                return self._send(messages)
            except self._errors as error:
                self.close()
                self._urls.rotate(-1)
                pause = next(waits)
                if monotonic() + pause > deadline:
                    reason = _ALARM if self._blocked else _line(error)
                    raise self.away(reason, command_ids) from error
            except BaseException:  # interrupted: what this connection answers next may be meant for this message
                self.close()
                raise
            sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - producers that lost one broker shall not return as one

    @property
    def redis_list(self) -> "RedisList[Sequence[OutgoingMessage]] | None":
        """What sends messages, where that is a connection to a Redis that is up and waits for no replicas."""
        from enrollment.client.redis_list import RedisList  # noqa: PLC0415 - as below

        return self._send if isinstance(self._send, RedisList) and self._pid == os.getpid() else None

    def away(self, reason: str, command_ids: tuple[UUID, ...]) -> BrokerAway:
        """Return what is raised for commands that the broker did not take."""
        return BrokerAway(self._shown, self._patience, reason, command_ids)

    def close(self) -> None:
        """Hang up, whatever state the connection is in."""
        connection, self._connection, self._send = self._connection, None, None
        if connection is not None and self._pid == os.getpid():
            connection.release()

    def _connect(self) -> "Connection":
        """Return a new connection; nothing is sent to the broker yet."""
        from enrollment.connections import Connection  # noqa: PLC0415 - who only may send does not pay for it
        from enrollment.redis_client import transport_options  # noqa: PLC0415 - as above

        self.close()
        url, self._blocked = ";".join(self._urls), False
        amqp = url.startswith("amqp")
        patience = {**_AMQP, "on_blocked": self._on_blocked} if amqp else {**_REDIS, **transport_options(url)}
        options = {**patience, **self._options}
        self._pid = os.getpid()
        known_by = {"credential_provider": options.pop("credential_provider", None)}
        connection = Connection(kombu_url(url), connect_timeout=_ANSWER, transport_options=options, **known_by)
        self._connection = connection
        self._errors = (OSError, *connection.connection_errors, *connection.channel_errors)
        if amqp:
            from amqp.exceptions import AMQPError, MessageNacked  # noqa: PLC0415 - as above

            self._errors += (AMQPError, MessageNacked)  # kombu knows some of them
        return connection

    def _on_blocked(self, _reason: str) -> None:
        self._blocked = True


def _open(connection: "Connection", replicas: int) -> Send:
    """Connect; return what sends."""
    from kombu import Producer, Queue  # noqa: PLC0415 - as above

    channel: Any = connection.channel()
    if connection.transport_cls in ("redis", "rediss", "sentinel"):
        if connection.transport_cls == "sentinel":
            from enrollment.redis_client import ask_first_who_knew  # noqa: PLC0415 - as above

            ask_first_who_knew(channel.pool.sentinel_manager)
            pool = channel.pool
        else:
            pool = channel.client.connection_pool  # its connection is there: kombu has tried it
        line = pool.get_connection()  # with all that kombu read from the address
        return _pushing(line, replicas, channel.global_keyprefix)
    if connection.transport.driver_type == "amqp":
        connected: Any = connection.connection
        connected.transport.raise_on_initial_eintr = True  # else `read_timeout` is passed over, and waited for ever
    for name in (QUEUE, BULK_QUEUE):  # AMQP drops, without a word, what is sent to a queue that is not there
        try:
            channel.queue_declare(name, passive=True)  # one that is there stays as it is, a quorum queue as well
        except connection.channel_errors:
            channel = connection.channel()
            Queue(name, channel=channel, queue_arguments=dict(QUEUE_ARGUMENTS)).queue_declare()
    return partial(_produce, Producer(channel))


def _pushing(connection: Any, replicas: int, prefix: str) -> Send:
    """Return what puts messages on a list of Redis: what kombu would put there, at a fraction of its cost.

    `connection` is redis-py's; an error means that the messages may not be there, or not on the replicas.
    """
    from enrollment.client.redis_list import RedisList, in_resp  # noqa: PLC0415 - as above
    from enrollment.replication import write  # noqa: PLC0415 - as above

    form = _GAP.sub("%b", _envelope().replace("%", "%%")).encode()
    tags = count(uuid4().node >> 1)  # half of what twelve digits hold is there to count on

    def entry(message: OutgoingMessage) -> bytes:
        queue, task, task_id, about, body, trace = message
        id_ = task_id.encode()
        more = _further(trace).encode() if trace else b""
        encoded, tag = b2a_base64(body.encode(), newline=False), b"%012x" % next(tags)
        return form % (encoded, task.encode(), id_, id_, about.encode(), more, id_, queue.encode(), tag)

    def lpush(messages: Sequence[OutgoingMessage]) -> list[bytes]:
        return [b"LPUSH", f"{prefix}{messages[0].queue}".encode(), *map(entry, messages)]

    def packed(messages: Sequence[OutgoingMessage]) -> bytes:
        return in_resp(lpush(messages))

    if replicas:
        return lambda messages: write(connection, replicas, *lpush(messages))
    return RedisList(connection, packed)


def _further(headers: Mapping[str, str]) -> str:
    return "".join([f", {_encode(name)}: {_encode(value)}" for name, value in headers.items()])


def _envelope() -> str:
    """Return the text of a message as kombu puts it on a list of Redis, byte for byte, with gaps."""
    gaps = OutgoingMessage("{queue}", "{task}", "{task_id}", "{about}", "{body}")
    text = _encode(
        {
            "body": gaps.body,
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": _headers(gaps),
            "properties": {
                "correlation_id": gaps.task_id,
                "reply_to": "",
                "delivery_mode": 2,
                "delivery_info": {"exchange": "", "routing_key": gaps.queue},
                "priority": 0,
                "body_encoding": "base64",
                "delivery_tag": f"{str(uuid4())[:24]}{{tag}}",  # this connection's, then counted
            },
        }
    )
    return text.replace('"stamps": {}', '"stamps": {}{trace}', 1)  # where there is a trace, it follows


def _produce(producer: "Producer", messages: Sequence[OutgoingMessage]) -> None:
    for message in messages:
        _produce_one(producer, message)


def _produce_one(producer: "Producer", message: OutgoingMessage) -> None:
    producer.publish(
        message.body,
        routing_key=message.queue,
        exchange="",
        delivery_mode=2,  # persistent
        content_type="application/json",
        content_encoding="utf-8",
        headers=_headers(message),
        correlation_id=message.task_id,
        reply_to="",
        mandatory=True,  # a queue that was deleted is an error; RabbitMQ would confirm, and drop
        confirm_timeout=_ANSWER,
    )


def _headers(message: OutgoingMessage) -> dict[str, Any]:
    return {
        "lang": "py",
        "task": message.task,
        "id": message.task_id,
        "shadow": None,
        "eta": None,
        "expires": None,
        "group": None,
        "group_index": None,
        "retries": 0,
        "timelimit": [None, None],
        "root_id": message.task_id,
        "parent_id": None,
        "argsrepr": "()",
        "kwargsrepr": message.about,
        "origin": f"gen{os.getpid()}@{socket.gethostname()}",
        "ignore_result": True,
        "replaced_task_nesting": 0,
        "stamped_headers": None,
        "stamps": {},
        **message.trace,
    }


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
