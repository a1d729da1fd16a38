"""The broker transport: kombu's for Redis, except that no message is ever between the queue and the record of it.

`register()` makes `redis://`, `rediss://` and `sentinel://` mean this transport. Keys and formats are those of stock
kombu, so stock producers and stock workers may use the same queues at the same time. See
docs/adr/0003-atomic-receive.md.
"""

from typing import Any, Final

from kombu import compression

from worker.transport import kombu_redis, rabbitmq
from worker.transport.channel import Channel, SentinelChannel
from worker.transport.envelope import OnGarbage
from worker.transport.poller import Poller

SCHEMES: Final = ("redis", "rediss")
SENTINEL: Final = "sentinel"


class Transport(kombu_redis.Transport):
    """kombu's Redis transport with our channel and poller."""

    Channel = Channel

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cycle = self._poller = Poller()

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        """Receive in an event loop."""
        super().register_with_event_loop(connection, loop)
        self._poller.tell(loop, self.on_readable)


class SentinelTransport(Transport):
    """The same, for the Redis that sentinels name."""

    Channel = SentinelChannel
    default_port = 26379


def register() -> None:
    """Let plain Redis URLs use this transport in this process. To be called before the first connection.

    Everything that reads the broker URL (Flower, `celery purge`, failover to an alternate URL) keeps working, which it
    would not with a scheme of our own or with the setting `broker_transport`.
    """
    ours = {
        **dict.fromkeys(SCHEMES, f"{__name__}:{Transport.__qualname__}"),
        SENTINEL: f"{__name__}:{SentinelTransport.__qualname__}",
        "amqp": f"{rabbitmq.__name__}:{rabbitmq.Transport.__qualname__}",
        "amqps": f"{rabbitmq.__name__}:{rabbitmq.TlsTransport.__qualname__}",
    }
    for scheme, transport in ours.items():
        kombu_redis.aliases[scheme] = transport
        kombu_redis.cached_transports.pop(scheme, None)
    rabbitmq.tolerate()
    _leave_compressed()


def _leave_compressed() -> None:
    """Keep kombu from inflating anything, on any transport: it does so before anyone can look, and without a limit."""
    known: Any = compression
    for name in known.encoders():
        encode, method = known.get_encoder(name)
        known.register(encode, lambda body: body, method)


__all__ = ["Channel", "OnGarbage", "SentinelChannel", "SentinelTransport", "Transport", "register"]
