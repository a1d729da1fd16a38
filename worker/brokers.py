"""How much waits in the queues, and for how long: looked at, and nothing moved."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from time import monotonic, time
from typing import Any, Final, Protocol
from uuid import UUID

from pydantic_core import from_json
from redis import CredentialProvider, Redis

from enrollment.addresses import is_redis
from enrollment.connections import Connection
from enrollment.errors import DeadLetterCode
from enrollment.names import BULK_QUEUE, QUEUE
from enrollment.redis_client import client as redis_client
from worker.lists import lists_of
from worker.metrics import sent_at
from worker.secret_files import renewing
from worker.settings import BrokerOptions

QUEUES: Final = (QUEUE, BULK_QUEUE)
DEAD_LETTER_CODES: Final = tuple(str(code) for code in DeadLetterCode)
PATIENCE: Final = 3.0  # seconds for Redis to answer
_UNACKED: Final = "unacked"


@dataclass(frozen=True, slots=True)
class QueueState:
    """Messages that wait in one queue; `oldest`: seconds, None where it cannot be known."""

    messages: int
    oldest: float | None


@dataclass(frozen=True, slots=True)
class Depths:
    """What the broker holds. `oldest_claim`: seconds; `unacknowledged` and `replicas` are None where it tells none."""

    queues: Mapping[str, QueueState]
    unacknowledged: int | None = None
    oldest_claim: float = 0.0
    replicas: int | None = None
    needed: int = 0  # of these, by the server's own settings


class Broker(Protocol):
    """A broker that can be asked."""

    def depths(self) -> Depths:
        """Return what it holds. Raises what its client raises."""

    def close(self) -> None:
        """Hang up."""


def watch(url: str, options: BrokerOptions, credentials: CredentialProvider | None = None) -> Broker:
    """Return a watcher for a broker; nothing is connected yet. `options` name its keys where it is Redis."""
    return RedisBroker(client_of(url, credentials), options) if is_redis(url) else AmqpBroker(url)


def client_of(url: str, credentials: CredentialProvider | None = None) -> "Redis":
    """Return a client for measuring. Bytes come as they are: anyone may have put anything into a queue."""
    waits = {"socket_timeout": PATIENCE, "socket_connect_timeout": PATIENCE, "health_check_interval": 15.0}
    return redis_client(**renewing(url, credentials) | waits)


class RedisBroker:
    """Redis: the lists of a queue, and the claims of the transport."""

    def __init__(self, client: "Redis", options: BrokerOptions) -> None:
        self._client = client
        self._prefix = options.global_keyprefix
        self._lists = {name: [self._prefix + it for it in lists_of(name, options.sep)] for name in QUEUES}
        self._first_seen: dict[str, tuple[bytes, float]] = {}  # list: digest of its oldest message, since when

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def depths(self) -> Depths:
        """Return what Redis holds, in one round trip."""
        pipe: Any = self._client.pipeline(transaction=False)
        for keys in self._lists.values():
            for key in keys:
                pipe.llen(key).lindex(key, -1)
        unacked_key, index = f"{self._prefix}{_UNACKED}", f"{self._prefix}unacked_index"
        pipe.hlen(unacked_key).zrangebyscore(index, "(0", "+inf", start=0, num=1, withscores=True).time()
        pipe.info("replication")
        *found, unacked, claims, (seconds, micros), info = pipe.execute()
        answers = iter(found)
        queues = {
            name: self._queue([(key, next(answers), next(answers)) for key in keys])
            for name, keys in self._lists.items()
        }
        now = seconds + micros / 1_000_000  # the server's clock, as in the claims
        return Depths(queues, unacked, max(0.0, now - claims[0][1]) if claims else 0.0, good_replicas(info))

    def _queue(self, lists: list[tuple[str, int, bytes | None]]) -> QueueState:
        ages = [self._age(key, oldest) for key, _, oldest in lists]
        return QueueState(sum(length for _, length, _ in lists), max(ages))

    def _age(self, key: str, oldest: bytes | None) -> float:
        """Return the age of a message: what its id says, or since when it is known to be the oldest of its list."""
        if oldest is None:
            self._first_seen.pop(key, None)
            return 0.0
        digest = blake2b(oldest, digest_size=16).digest()
        seen, since = self._first_seen.get(key, (b"", 0.0))
        if seen != digest:
            since = monotonic()
            self._first_seen[key] = (digest, since)
        sent = _sent_at(oldest)
        return max(0.0, monotonic() - since, 0.0 if sent is None else time() - sent)


class AmqpBroker:
    """RabbitMQ: the number of messages that are ready. It has metrics of its own for the rest."""

    def __init__(self, url: str) -> None:
        self._url = url

    def close(self) -> None:
        """Do nothing: each question has a connection of its own."""

    def depths(self) -> Depths:
        """Return how many messages wait."""
        with Connection(self._url, connect_timeout=PATIENCE) as connection:
            connection.ensure_connection(max_retries=len(connection.alt))  # by itself it tries two nodes only
            channel: Any = connection.channel()
            counts = {name: channel.queue_declare(name, passive=True).message_count for name in QUEUES}
        return Depths({name: QueueState(count, None) for name, count in counts.items()})


def good_replicas(info: Any) -> int:
    """Return how many replicas a Redis has, by its INFO; those that lag too far do not count where it has a limit."""
    return int(info.get("min_slaves_good_slaves", info.get("connected_slaves", 0)))


def _sent_at(raw: bytes) -> float | None:
    """Return when a message was sent, where its id says so."""
    try:
        return sent_at(UUID(from_json(raw)["headers"]["id"]))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):  # anything can be in a queue
        return None
