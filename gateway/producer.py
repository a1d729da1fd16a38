"""The producer: the one of `enrollment.client.producer`, off the event loop, over a few connections to the broker."""

from collections.abc import Mapping, Sequence
from queue import LifoQueue
from typing import Any, Final

from anyio import CapacityLimiter, to_thread

from enrollment.addresses import is_redis, kombu_url
from enrollment.client import Client
from enrollment.commands import Command, Withdraw
from enrollment.connections import Connection
from enrollment.names import QUEUE
from enrollment.redis_client import transport_options

CONNECTIONS: Final = 4  # per process
PATIENCE: Final = 2.0  # seconds for a broker that is away; the client is told to come again


class CommandProducer:
    """Puts commands on the queue. Raises BrokerAway, and nothing is swallowed."""

    def __init__(self, broker_url: str, transport_options: Mapping[str, Any] | None = None) -> None:
        self._clients: LifoQueue[Client] = LifoQueue()
        for _ in range(CONNECTIONS):
            self._clients.put(Client(broker_url, patience=PATIENCE, transport_options=transport_options))
        self._limiter = CapacityLimiter(CONNECTIONS)
        self._checks = CapacityLimiter(1)  # of its own: nobody who asks for a sign of life holds up a write
        self._broker_url = broker_url
        self._known_by: dict[str, Any] = {"credential_provider": (transport_options or {}).get("credential_provider")}

    async def send(self, commands: Sequence[Command | Withdraw]) -> None:
        """Send commands: one by itself, more in one `apply` message, so all or none. Raises BrokerAway."""
        await to_thread.run_sync(self._send, commands, limiter=self._limiter)

    async def check(self) -> None:
        """Ask the broker for a sign of life. Raises what kombu raises."""
        await to_thread.run_sync(self._check, limiter=self._checks)

    def close(self) -> None:
        """Hang up."""
        while not self._clients.empty():
            self._clients.get().close()

    def _send(self, commands: Sequence[Command | Withdraw]) -> None:
        client = self._clients.get()
        try:
            if len(commands) == 1:
                client.send(commands[0])
                return
            with client.bulk(QUEUE) as bulk:  # somebody waits for it: not behind an import
                for command in commands:
                    bulk.send(command)
        finally:
            self._clients.put(client)

    def _check(self) -> None:
        waits = {"socket_connect_timeout": 1.0, "socket_timeout": 1.0} if is_redis(self._broker_url) else {}
        options = {**transport_options(self._broker_url), **waits}
        with Connection(
            kombu_url(self._broker_url), connect_timeout=1.0, transport_options=options, **self._known_by
        ) as connection:
            connection.connect()
