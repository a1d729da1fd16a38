"""The event stream in Redis, as entries; `redis` leaves open what it answers with, so that is settled here."""

from typing import Any, Final, NamedTuple, cast

from redis import CredentialProvider
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, ResponseError

from enrollment.addresses import asked, is_sentinel, kombu_url
from enrollment.consumer.reader import is_gap
from enrollment.redis_client import SENTINEL_ANSWER
from worker.secret_files import renewing

_CONNECTIONS: Final = 16  # one listens; the others answer, and a seventeenth question waits
_BLOCK: Final = 5000  # milliseconds that Redis holds one question open
PAGE: Final = 500  # entries read at once


class StreamEntry(NamedTuple):
    """An entry of the stream: its id, and the event's JSON as it stands there."""

    id: str
    event: str

    def text(self) -> str:
        """Return it as a server-sent event."""
        return f"id: {self.id}\ndata: {self.event}\n\n"


class Stream:
    """Reads one stream. Every method raises redis.RedisError when Redis is away."""

    def __init__(self, client: Redis, key: str) -> None:
        self._client: Any = client
        self._key = key

    async def ping(self) -> None:
        """Do nothing, if Redis answers."""
        await self._client.ping()

    async def end(self) -> str:
        """Return the id of the newest entry."""
        newest = await self._client.xrevrange(self._key, count=1)
        return str(newest[0][0]) if newest else "0-0"

    async def newest(self, count: int, *, before: str | None = None) -> list[StreamEntry]:
        """Return the newest entries (before another), the newest first."""
        end = "+" if before is None else f"({before}"
        return _entries(await self._client.xrevrange(self._key, max=end, count=count))

    async def next(self, after: str) -> list[StreamEntry]:
        """Return what comes after an entry, as soon as it comes; nothing after some seconds."""
        answer = await self._client.xread({self._key: after}, count=PAGE, block=_BLOCK)
        return [entry for _, entries in answer or () for entry in _entries(entries)]

    async def has_gap(self, after: str) -> bool:
        """Tell whether entries after this one may be gone; a yes may be one entry too early."""
        try:
            return is_gap(await self._client.xinfo_stream(self._key), after)
        except ResponseError as error:
            if "no such key" in str(error):
                return True
            raise

    async def page(self, after: str) -> list[StreamEntry]:
        """Return the entries after another that are there already; fewer than PAGE where these are the last."""
        return _entries(await self._client.xrange(self._key, min=f"({after}", count=PAGE))


def _entries(found: Any) -> list[StreamEntry]:
    return [StreamEntry(entry_id, fields.get("event", "")) for entry_id, fields in found]


def connect(url: str, credentials: CredentialProvider | None = None) -> Redis:
    """Return a client for one process, with connections of which few are shared by many.

    `credentials` tell user and password for each new connection, in place of those in the address.
    """
    options: dict[str, Any] = {
        "protocol": 2,
        "decode_responses": True,
        "encoding_errors": "replace",  # anyone who may write to the stream can put anything there
        "max_connections": _CONNECTIONS,
        "timeout": 5,  # seconds for a connection to be free
        "socket_timeout": 10,  # more than a blocked XREAD lasts
        "socket_connect_timeout": 2,
        "socket_keepalive": True,
        "health_check_interval": 15,
        # A master that became a replica: a new connection finds the new master. Nothing else is tried again.
        "retry": Retry(NoBackoff(), 1, (ReadOnlyError,)),
        "client_name": "enrollment-gateway",
    }
    known_by = renewing(url, credentials)
    url = known_by.pop("url")
    if is_sentinel(url):
        return Redis.from_pool(_behind_sentinels(url, {**options, **known_by}))
    return Redis.from_pool(BlockingConnectionPool.from_url(kombu_url(url), **options, **known_by))


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Few connections that are shared by many, to the Redis that sentinels name."""

    async def disconnect(self, inuse_connections: bool = True) -> None:  # noqa: FBT001, FBT002 (redis-py's)
        """Hang up; at the end, at the sentinels as well."""
        await super().disconnect(inuse_connections)
        if inuse_connections:
            for sentinel in self.sentinel_manager.sentinels:
                await sentinel.aclose()


def _behind_sentinels(url: str, options: dict[str, Any]) -> BlockingConnectionPool:
    said = asked(url)
    waits = {**SENTINEL_ANSWER, "retry": Retry(NoBackoff(), 0)}
    pool, ask = cast(Any, _SentinelPool), cast(Any, Sentinel)  # redis-py does not say of what types their arguments are
    made: BlockingConnectionPool = pool(
        said.master_name, ask(said.hosts, sentinel_kwargs={**waits, **said.sentinel}), **{**said.server, **options}
    )
    return made
