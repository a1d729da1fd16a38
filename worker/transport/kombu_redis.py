"""kombu's Redis transport as this one needs to see it: with the private parts that are overridden or called, typed.

This is the list to go through when kombu is upgraded; tests/integration/transport/test_stock.py holds it against the
real one.
"""
# ruff: noqa: SLF001 - kombu is untyped, and this is about its private parts.

from typing import TYPE_CHECKING, Any

from kombu import transport as _transports
from kombu.transport import redis as _redis

if TYPE_CHECKING:
    from collections.abc import Iterable

    class QoS(_redis.QoS):
        """Counts what was delivered and not acknowledged."""

    class Channel(_redis.Channel):
        """Receives and sends."""

        connection_errors: tuple[type[Exception], ...]
        _fanout_queues: dict[str, Any]

        def _connparams(self, asynchronous: bool = ...) -> dict[str, Any]: ...  # noqa: FBT001 (kombu's)
        def _process_credential_provider(self, provider: Any, parameters: dict[str, Any]) -> None: ...
        def _create_client(self, asynchronous: bool = ...) -> Any: ...  # noqa: FBT001 (kombu's)
        @property
        def pool(self) -> Any: ...
        def _receive_one(self, client: Any) -> Any: ...
        def _basic_cancel(self, consumer_tag: str) -> Any: ...
        def _on_connection_disconnect(self, connection: Any) -> None: ...
        def _get_publish_topics(self, exchange: Any, routing_key: str) -> Iterable[str]: ...
        def _put_fanout(self, exchange: Any, message: Any, routing_key: str, **kwargs: Any) -> None: ...

    class SentinelChannel(Channel):
        """Asks sentinels for the primary whenever it connects."""

        def _sentinel_managed_pool(self, asynchronous: bool = ...) -> Any: ...  # noqa: FBT001 (kombu's)

    class Poller(_redis.MultiChannelPoller):
        """Waits on the sockets of all channels."""

        _channels: set[Any]
        _fd_to_chan: dict[int, tuple[Any, str]]

        @property
        def fds(self) -> dict[int, tuple[Any, str]]: ...

        def _client_registered(self, channel: Any, client: Any, kind: str) -> bool: ...
        def _register(self, channel: Any, client: Any, kind: str) -> None: ...

    class Transport(_redis.Transport):
        """Makes channels."""

    def socket_readable(sock: Any) -> bool:
        """Tell whether there is something to read, without reading it."""

    cached_transports: dict[str, Any]
else:
    QoS = _redis.QoS
    Channel = _redis.Channel
    SentinelChannel = _redis.SentinelChannel
    Poller = _redis.MultiChannelPoller
    Transport = _redis.Transport
    socket_readable = _redis._socket_readable
    cached_transports = _transports._transport_cache

aliases: dict[str, Any] = _transports.TRANSPORT_ALIASES
