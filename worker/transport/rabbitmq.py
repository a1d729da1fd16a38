"""kombu's transport for RabbitMQ, which reads all that has come at once and acknowledges a batch in one frame.

`register()` (worker.transport) makes `amqp://` and `amqps://` mean it. What is sent and received is the same as before.
Stock kombu reads a message in nine calls of the system, and lets the event loop turn after each: batches stay small.
"""
# ruff: noqa: SLF001 - py-amqp has no public way to what it has read ahead.

import ssl
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from struct import unpack_from
from typing import Any, Final

import amqp
from amqp import method_framing
from amqp.exceptions import UnexpectedFrame
from kombu.transport import pyamqp

from enrollment import rabbitmq_tls
from worker.transport.envelope import short

CHUNK: Final = 256 * 1024  # bytes read at once
CHUNKS: Final = 16  # between two turns of the event loop
_HEAD: Final = 7  # bytes before the payload of a frame
_END: Final = 0xCE


class Properties(amqp.Message):
    """A message as py-amqp reads it; properties that cannot be read are none, and stop nothing."""

    def _load_properties(self, class_id: int, buf: bytes, offset: int) -> int:
        try:
            return int(super()._load_properties(class_id, buf, offset))  # type: ignore[misc]
        except Exception as error:  # noqa: BLE001 - anyone may have written them
            self.properties = {"application_headers": {}, "unreadable": short(error)}
            return len(buf)


class Channel(pyamqp.Channel):
    """A channel that knows which messages it holds."""

    connection: "Connection"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.held: dict[int, None] = {}  # delivery tags, which rise

    def basic_consume(self, queue: str = "", *args: Any, **kwargs: Any) -> Any:
        """Consume; a quorum queue takes the prefetch limit that the channel has at this moment."""
        limit = self.connection.prefetch.get(queue)
        if limit and not kwargs.get("no_ack"):
            self.basic_qos(0, limit, False)  # noqa: FBT003 (not global: a quorum queue refuses that)
        return super().basic_consume(queue, *args, **kwargs)

    def message_to_python(self, raw_message: Any) -> Any:
        message: Any = super().message_to_python(raw_message)
        if raw_message.delivery_info["consumer_tag"] not in (self.no_ack_consumers or ()):
            self.held[message.delivery_tag] = None
        return message

    def basic_publish(self, *args: Any, **kwargs: Any) -> Any:
        """Publish; drop it while RabbitMQ blocks producers: it reads nothing more, and the event loop would wait.

        So task events and answers to remote control get lost. What has to be confirmed does not come here.
        """
        return None if self.connection.blocked else super().basic_publish(*args, **kwargs)

    def basic_ack(self, delivery_tag: int, multiple: bool = False, *args: Any, **kwargs: Any) -> Any:  # noqa: FBT001, FBT002
        self.held.pop(delivery_tag, None)
        return super().basic_ack(delivery_tag, multiple, *args, **kwargs)

    def basic_reject(self, delivery_tag: int, *args: Any, **kwargs: Any) -> Any:
        self.held.pop(delivery_tag, None)
        return super().basic_reject(delivery_tag, *args, **kwargs)

    def touch(self) -> None:
        """Give a sign of life; to be called every second while the event loop does not turn."""
        self.connection.send_heartbeat()

    def ack_many(self, tags: Sequence[int]) -> None:
        """Acknowledge these, in as few frames as their order allows."""
        upto, single = runs(self.held, tags)
        for tag in tags:
            self.held.pop(tag, None)
        if upto:
            self.basic_ack(upto, multiple=True)
        for tag in single:
            self.basic_ack(tag)


def runs(held: Iterable[int], tags: Iterable[int]) -> tuple[int, list[int]]:
    """Return the tag up to which all that is held is among `tags` (0: none), and the `tags` beyond it.

    `held` rises, and has all of `tags`.
    """
    done, upto = set(tags), 0
    for tag in held:
        if tag not in done:
            break
        upto = tag
    return upto, sorted(tag for tag in done if tag > upto)


class Connection(pyamqp.Connection):
    """A connection. `prefetch`: messages that may be delivered and not yet acknowledged, for some queues."""

    Channel = Channel

    def __init__(self, *args: Any, prefetch: Mapping[str, int] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.prefetch = dict(prefetch or {})
        self.blocked = False  # an alarm: no message is taken from us
        self._frames: deque[tuple[int, int, bytes]] = deque()

    def connect(self, callback: Any = None) -> Any:
        connected = super().connect(callback)
        self.transport.raise_on_initial_eintr = True  # else `read_timeout` is passed over until the event loop runs
        return connected

    def _on_blocked(self) -> Any:
        self.blocked = True
        return super()._on_blocked()  # type: ignore[misc]

    def _on_unblocked(self) -> Any:
        self.blocked = False
        return super()._on_unblocked()  # type: ignore[misc]

    def blocking_read(self, timeout: float | None = None) -> Any:
        """Read one frame; those that were read ahead come first."""
        return self.on_inbound_frame(self._frames.popleft()) if self._frames else super().blocking_read(timeout)

    def drain(self) -> bool:
        """Handle all that has come; tell whether there may be more. Raises as `drain_events`, except for a timeout."""
        for _ in range(CHUNKS):
            if not self._read_ahead():
                return False
            while self._frames:
                self.on_inbound_frame(self._frames.popleft())
        return True

    def _read_ahead(self) -> bool:
        """Read what is there, once; return False if there is nothing."""
        transport = self.transport
        try:
            with transport.having_timeout(0):
                data = transport.sock.recv(CHUNK)
        except (TimeoutError, BlockingIOError, InterruptedError, ssl.SSLWantReadError):
            return False
        except OSError:
            transport.connected = False
            raise
        if not data:
            transport.connected = False
            raise ConnectionResetError("RabbitMQ has hung up.")
        buffer, start = transport._read_buffer + data, 0
        while len(buffer) - start > _HEAD:
            kind, channel, size = unpack_from(">BHI", buffer, start)
            end = start + _HEAD + size
            if end >= len(buffer):
                break
            if buffer[end] != _END:
                raise UnexpectedFrame(f"Received {buffer[end]:#04x} where a frame has to end.")
            self._frames.append((kind, channel, buffer[start + _HEAD : end]))
            start = end + 1
        transport._read_buffer = buffer[start:]
        return True


class Transport(pyamqp.Transport):
    """kombu's transport with our connection."""

    Connection = Connection

    def on_readable(self, connection: Any, loop: Any) -> None:
        """Read until nothing is left: what has come meanwhile is one batch (the event loop's callback)."""
        if not connection.connected:
            raise amqp.RecoverableConnectionError("The connection to RabbitMQ is gone.")
        if connection.drain():
            loop.call_soon(self.on_readable, connection, loop)


class TlsTransport(rabbitmq_tls.Transport, Transport):
    """The same over TLS."""


def tolerate() -> None:
    """Let py-amqp read messages whose properties make no sense."""
    method_framing.Message = Properties  # type: ignore[misc]
