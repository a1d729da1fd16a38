"""Waiting for messages without taking them: one blocked connection per queue, in the event loop that kombu has."""

from collections.abc import Callable, Iterator, Mapping
from time import monotonic
from typing import Any, Final, Protocol, cast

from redis import ConnectionError as RedisConnectionError

from worker.transport import kombu_redis
from worker.transport.claims import BrokerRefused

WAIT: Final = 2  # seconds after which the server answers that there is nothing; the rate of that chatter while idle
SKIPPED: Final = 1024 * 1024  # bytes that are read to be thrown away; with a larger message, hanging up is cheaper
CHUNK: Final = 64 * 1024
NOTHING: Final = (b"$-1", b"*-1", b"_")  # RESP 2 and 3
SILENCE: Final = WAIT + 5  # seconds without that answer after which the network is taken to be gone


class Peek:
    """One connection that blocks in `BLMOVE queue queue RIGHT RIGHT`: it learns of a message and moves nothing."""

    def __init__(self, client: Any, key: str) -> None:
        self.client = client
        self.key = key
        self.kind = f"BLMOVE {key}"  # its name in kombu's poller
        self.sent_at: float | None = None
        self.refused = False  # the last answer was that the server is out of memory

    def send(self) -> None:
        """Ask, and do not wait for the answer."""
        self.client.connection.send_command("BLMOVE", self.key, self.key, "RIGHT", "RIGHT", WAIT)
        self.sent_at = monotonic()

    def read(self) -> bool:
        """Read the answer: whether there may be something to claim."""
        self.sent_at = None
        self.refused = False
        connection = self.client.connection
        try:
            line, left = _first_line(connection._sock)  # noqa: SLF001 - redis-py reads a message whole, of any size
            if left > SKIPPED or line[:1] not in (b"$", b"*", b"_"):
                connection.disconnect()  # the rest is not waited for
            else:
                while left > 0:
                    left -= len(_receive(connection._sock, min(left, CHUNK)))  # noqa: SLF001
        except Exception:
            connection.disconnect()
            raise
        if line.startswith(b"-OOM"):
            self.refused = True
            return True  # BLMOVE counts as a write; claiming is possible all the same, and makes room
        if line.startswith(b"-"):
            raise BrokerRefused(line[1:].decode(errors="replace"))
        return line not in NOTHING

    def check(self) -> None:
        """Raise redis.ConnectionError, which makes Celery reconnect, when there has been no answer for too long."""
        if self.sent_at is None or monotonic() - self.sent_at < SILENCE:
            return
        sock = getattr(self.client.connection, "_sock", None)
        if sock is None or kombu_redis.socket_readable(sock):
            return  # the answer is there; the worker was busy
        self.close()
        raise RedisConnectionError(f"Redis has not answered for {SILENCE} s; the connection is given up.")

    def close(self) -> None:
        """Hang up. Nothing can be lost by that, nothing is under way."""
        connection = getattr(self.client, "connection", None)
        if connection is not None:
            connection.disconnect()  # the poller lets go of it by way of the client, so this comes first
            self.client.connection = None
            self.client.connection_pool.release(connection)


def _first_line(sock: Any) -> tuple[bytes, int]:
    """Return the first line of an answer, and how many bytes of it are still to come."""
    data = b""
    while b"\r\n" not in data:
        data += _receive(sock, CHUNK)
    line, _, rest = data.partition(b"\r\n")
    size = int(line[1:]) if line.startswith(b"$") else -1
    return line, size + 2 - len(rest) if size >= 0 else 0


def _receive(sock: Any, size: int) -> bytes:
    try:
        data: bytes = sock.recv(size) if sock else b""
    except OSError as error:
        raise RedisConnectionError(f"The connection to Redis is gone: {error}") from error
    if not data:
        raise RedisConnectionError("Redis has hung up.")
    return data


class PeekingChannel(Protocol):
    """What the poller needs of a channel (`worker.transport.channel`)."""

    peek_handlers: dict[str, Callable[[], bool]]

    def peeks_due(self) -> Iterator[Peek]: ...
    def tick(self) -> None: ...


class Poller(kombu_redis.Poller):
    """kombu's poller, with the blocked connections of the queues to claim from."""

    _watched: Mapping[int, tuple[Any, Any] | None] = {}  # of the event loop, by file descriptor: whom to tell
    _reader: Any = None

    def tell(self, loop: Any, reader: Callable[[int], object]) -> None:
        """Take it that this loop tells this reader of what it watches."""
        self._watched, self._reader = loop.readers, reader

    @property
    def fds(self) -> dict[int, tuple[Any, str]]:
        """What the event loop is yet to watch: kombu has it add all in each turn, with a call of the system for each.

        The poll itself has them already, since they were registered here.
        """
        return {fd: it for fd, it in super().fds.items() if (self._watched.get(fd) or (None,))[0] != self._reader}

    def on_poll_start(self) -> None:
        """Before the event loop sleeps: ask for messages wherever some may be taken and no question is open."""
        super().on_poll_start()
        for channel in self._mine():
            for peek in channel.peeks_due():
                if not self._client_registered(channel, peek.client, peek.kind):
                    peek.sent_at = None
                    self._register(channel, peek.client, peek.kind)
                if peek.sent_at is None:
                    peek.send()

    def on_readable(self, fileno: int) -> Any:
        """Let an answer be read even when nothing may be claimed: it holds no message, unlike that of a BRPOP."""
        channel, kind = self._fd_to_chan.get(fileno, (None, ""))
        if channel is not None and kind in channel.peek_handlers:
            return channel.peek_handlers[kind]()
        return super().on_readable(fileno)

    def maybe_restore_messages(self) -> None:
        """Every `unacked_restore_interval` seconds: look for what no answer tells of."""
        for channel in self._mine():
            channel.tick()

    def _mine(self) -> "list[PeekingChannel]":
        return cast("list[PeekingChannel]", list(self._channels))
