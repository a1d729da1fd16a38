"""The producer: messages of `enrollment.client.producer`, off the event loop, over a few connections to the broker."""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import chain
from queue import Empty, LifoQueue
from typing import Any, Final
from uuid import UUID

from enrollment.addresses import is_redis, kombu_url
from enrollment.client import BrokerAway
from enrollment.client.broker_connection import BrokerConnection, OutgoingMessage
from enrollment.client.producer import outgoing
from enrollment.client.tracing import is_traced, sending
from enrollment.commands import Command, Withdraw
from enrollment.connections import Connection
from enrollment.redis_client import transport_options
from gateway.broker_line import BrokerLine
from gateway.together import Together

CONNECTIONS: Final = 4  # per process
PATIENCE: Final = 2.0  # seconds for a broker that is away; the client is told to come again
_ANSWER: Final = 5.0  # seconds for a Redis that is connected to answer


class CommandProducer:
    """Puts commands on the queue. Raises BrokerAway, and nothing is swallowed.

    What is sent at one moment goes to Redis in one round trip. RabbitMQ confirms message by message: there, each has a
    connection for itself.
    """

    def __init__(self, broker_url: str, transport_options: Mapping[str, Any] | None = None) -> None:
        self._connections: LifoQueue[BrokerConnection] = LifoQueue()
        for _ in range(CONNECTIONS):
            self._connections.put(BrokerConnection(broker_url, PATIENCE, transport_options))
        self._line: BrokerLine | None = None
        self._taking = False
        self._together = Together(self._publish) if is_redis(broker_url) else None
        self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="producer")
        self._checks = ThreadPoolExecutor(1)  # of its own: nobody who asks for a sign of life holds up a write
        self._broker_url = broker_url
        self._known_by: dict[str, Any] = {"credential_provider": (transport_options or {}).get("credential_provider")}

    async def send(self, commands: Sequence[Command | Withdraw]) -> None:
        """Send commands: one by itself, more in one `apply` message, so all or none. Raises BrokerAway."""
        message, ids = outgoing(commands), tuple(command.command_id for command in commands)
        about = message.task, message.queue, message.task_id, len(ids)
        with sending(*about) if is_traced() else nullcontext(message.trace) as trace:
            question = message._replace(trace=trace), ids
            try:
                await (self._together(question) if self._together else self._publish([question]))
            except BrokerAway as error:
                raise error.of(ids) from error

    async def check(self) -> None:
        """Ask the broker for a sign of life. Raises what kombu raises."""
        await asyncio.get_running_loop().run_in_executor(self._checks, self._check)

    def close(self) -> None:
        """Hang up. What is still under way ends by itself."""
        self._checks.shutdown(wait=False, cancel_futures=True)
        self._threads.shutdown(wait=False)
        if self._line is not None:
            self._leave(self._line)
        while not self._connections.empty():
            self._connections.get().close()

    async def _publish(self, sent: Sequence[tuple[OutgoingMessage, tuple[UUID, ...]]]) -> Sequence[None]:
        messages, ids = [message for message, _ in sent], tuple(chain.from_iterable(ids for _, ids in sent))
        if not await self._published(messages, ids):
            await asyncio.get_running_loop().run_in_executor(self._threads, self._publish_all, messages, ids)
            await self._take_line()
        return [None] * len(sent)

    async def _published(self, messages: Sequence[OutgoingMessage], ids: tuple[UUID, ...]) -> bool:
        """Publish within the event loop, where that is possible; tell whether it was done. Raises BrokerAway."""
        line = self._line
        if line is None:
            return False
        try:
            async with asyncio.timeout(_ANSWER):
                if await line.publish(messages):
                    return True
        except TimeoutError as error:
            self._leave(line)
            raise line.connection.away("no answer", ids) from error
        self._leave(line)  # Redis has hung up, or refused: a thread tries again, and tells
        return False

    async def _take_line(self) -> None:
        if self._line is not None or self._taking:
            return
        try:
            connection = self._connections.get_nowait()  # the one that was used last
        except Empty:
            return
        self._taking = True
        try:
            self._line = await BrokerLine.over(connection)
        finally:
            self._taking = False
            if self._line is None:
                self._connections.put(connection)

    def _leave(self, line: BrokerLine) -> None:
        if line is self._line:
            self._line = None
            line.close()
            self._connections.put(line.connection)

    def _publish_all(self, messages: Sequence[OutgoingMessage], ids: tuple[UUID, ...]) -> None:
        connection = self._connections.get()
        try:
            connection.publish_all(messages, ids)
        finally:
            self._connections.put(connection)

    def _check(self) -> None:
        waits = {"socket_connect_timeout": 1.0, "socket_timeout": 1.0} if is_redis(self._broker_url) else {}
        options = {**transport_options(self._broker_url), **waits}
        with Connection(
            kombu_url(self._broker_url), connect_timeout=1.0, transport_options=options, **self._known_by
        ) as connection:
            connection.connect()
