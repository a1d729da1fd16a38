"""A connection to a broker that is a Redis, within the event loop: a thread takes as long again as Redis."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, Self, cast

from enrollment.client.broker_connection import BrokerConnection, OutgoingMessage

_IDLE: Final = 20.0  # seconds after which nothing is known of a connection any more


class BrokerLine(asyncio.Protocol):
    """Puts messages on the queue over a connection that was opened in a thread, which is its own from then on."""

    def __init__(self, connection: BrokerConnection, pack: Callable[[Sequence[OutgoingMessage]], bytes]) -> None:
        self.connection = connection
        self._pack = pack
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._said = b""
        self._used = monotonic()

    @classmethod
    async def over(cls, connection: BrokerConnection) -> Self | None:
        """Return a line; None where there has to be a thread: for RabbitMQ, for TLS, where replicas are waited for."""
        redis_list = connection.redis_list
        if redis_list is None or redis_list.socket is None:
            return None
        with suppress(OSError):
            connected = redis_list.socket.dup()  # redis-py closes its own
            loop = asyncio.get_running_loop()
            _, line = await loop.create_connection(lambda: cls(connection, redis_list.packed), sock=connected)
            return line
        return None

    @property
    def is_up(self) -> bool:
        """Whether Redis has not hung up, as far as is known."""
        return self._transport is not None and monotonic() - self._used < _IDLE

    async def publish(self, messages: Sequence[OutgoingMessage]) -> bool:
        """Put messages on their queue; tell whether they are there for certain."""
        if not self.is_up or self._transport is None:
            return False
        self._used = monotonic()
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._transport.write(self._pack(messages))
        return await answer

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()
        self.connection.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Take answers: to LPUSH, a number that follows a colon. After anything else, the next may be nobody's."""
        *lines, self._said = (self._said + data).split(b"\r\n")
        for line in lines:
            if not line.startswith(b":"):
                self.close()
                return
            if self._waiting and not (answer := self._waiting.popleft()).done():
                answer.set_result(True)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        """Tell those who wait that it is not certain."""
        self._transport = None
        for answer in self._waiting:
            if not answer.done():
                answer.set_result(False)
