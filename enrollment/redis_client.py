"""Clients of redis-py for the addresses that are understood here: of one Redis, or of the sentinels that know it."""

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import MasterDownError, ReadOnlyError, ResponseError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from enrollment.addresses import asked, is_sentinel, kombu_url

_Sentinel: Final[Any] = Sentinel  # redis-py does not say of what types its arguments are
_ANSWER: Final = 2.0  # seconds for the server that sentinels name to answer: they may name another one by then
# Seconds for a sentinel to answer: there is another one to ask. Each new connection asks, so a host that died with its
# sentinel costs this again and again.
SENTINEL_ANSWER: Final = {"socket_connect_timeout": 0.5, "socket_timeout": 1.0}
_REFUSED: Final = ("NOREPLICAS", "UNBLOCKED force unblock")  # answers of a server that is no primary, or alone


def client(url: str, **options: Any) -> Redis:
    """Return a client for an address that `redis_url` has read; `options` are redis-py's for its connections.

    Behind sentinels, each new connection asks them for the primary. Raises redis.ConnectionError when used.
    """
    if not is_sentinel(url):
        return Redis.from_url(kombu_url(url), **options)
    said = asked(url)
    sentinels = _Sentinel(said.hosts, sentinel_kwargs=sentinel_options(said.sentinel))
    ask_first_who_knew(sentinels)
    return Redis.from_pool(_Pool(said.master_name, sentinels, **{**said.server, **options}))


def transport_options(url: str) -> dict[str, Any]:
    """Return what kombu has to be told of an address besides `kombu_url`: nothing, where it names no sentinels."""
    if not is_sentinel(url):
        return {}
    said = asked(url)
    sentinels = {"master_name": said.master_name, "sentinel_kwargs": sentinel_options(said.sentinel)}
    return {**sentinels, "socket_timeout": _ANSWER, "socket_connect_timeout": _ANSWER}


def sentinel_options(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return redis-py's options for the connections to sentinels: one that does not answer is soon passed over."""
    return {**SENTINEL_ANSWER, "retry": Retry(NoBackoff(), 0), **said}


_knowing: Final[dict[str, tuple[str, int]]] = {}  # name of a primary -> the sentinel that knew it last


def ask_first_who_knew(manager: Any) -> None:
    """Let a new manager of redis-py's begin with the sentinel that knew the primary last, in this process.

    A manager keeps that to itself; kombu makes one for each pool, which would wait for a silent sentinel each time.
    """
    itself = weakref.proxy(manager)  # else its connections would stay open until the collector comes by

    def discover(name: str) -> tuple[str, int]:
        found: tuple[str, int] = type(manager).discover_master(itself, name)
        _knowing[name] = _address(itself.sentinels[0])
        return found

    known = set(_knowing.values())
    manager.sentinels.sort(key=lambda it: _address(it) not in known)
    manager.discover_master = discover


def ask_first(manager: Any, name: str, sentinel: Redis) -> None:
    """Let this sentinel of a manager's be the first that is asked for the primary, here and by new managers."""
    _knowing[name] = _address(sentinel)
    manager.sentinels.sort(key=lambda it: it is not sentinel)


def _address(sentinel: Redis) -> tuple[str, int]:
    said = sentinel.connection_pool.connection_kwargs
    return said["host"], int(said["port"])


class _Pool(SentinelConnectionPool):
    """Connections to the Redis that sentinels name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[no-untyped-call]  # redis-py's

    def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 (redis-py's)
        """Hang up; at the end, at the sentinels as well."""
        super().disconnect(inuse_connections)
        if inuse_connections:
            self.sentinel_manager.close()


@contextmanager
def outages(redis: Redis) -> Iterator[None]:
    """Turn the answers of a server that is not, or no longer, the primary into redis.ConnectionError: try again.

    Its connections are ended. A new one finds the primary, behind sentinels or behind an address that moves.
    """
    try:
        yield
    except ResponseError as error:
        if isinstance(error, ReadOnlyError | MasterDownError) or str(error).startswith(_REFUSED):
            redis.connection_pool.disconnect()
            raise Disconnected(str(error)) from error
        raise
