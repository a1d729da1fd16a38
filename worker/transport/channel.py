"""kombu's Redis channel with another way to receive: wait without taking, then claim atomically."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import Empty
from time import monotonic
from typing import Any, Final, cast

import structlog
from kombu.utils.json import dumps
from redis import Redis, RedisError

from enrollment.errors import DeadLetterCode
from enrollment.redis_client import ask_first_who_knew
from worker import liveness, metrics
from worker.lists import lists_of
from worker.transport import kombu_redis
from worker.transport.claims import Claim, Claims, Source
from worker.transport.envelope import Delivery, Garbage, OnGarbage, parse
from worker.transport.limits import MOST_BYTES
from worker.transport.poller import Peek
from worker.transport.qos import MOST_MESSAGES
from worker.transport.qos import QoS as ClaimQoS

DELIVERIES: Final = 3  # times that a message may come again and its worker fall silent: then it is a dead letter
PAUSE: Final = 1.0  # seconds between questions that tell nothing, on a server that is out of memory

log = structlog.get_logger(__name__)


class Channel(kombu_redis.Channel):
    """A channel whose acknowledged queues are claimed from; the others (replies, fanout) stay as they are in kombu.

    Meant for the solo pool: the next claim waits until everything of the last one is acknowledged. Transport options
    besides kombu's: `claim_limits` (queue -> most messages in one claim), `claim_bytes` (of one claim),
    `message_bytes` (of a message; a larger one never leaves Redis), `credential_provider` (redis-py's) and `replicas`
    (that must know of a claim).
    """

    QoS = ClaimQoS
    from_transport_options = (
        *kombu_redis.Channel.from_transport_options,
        "claim_limits",
        "claim_bytes",
        "message_bytes",
        "credential_provider",
        "replicas",
    )
    claim_limits: Mapping[str, int] = {}
    claim_bytes = 8 * 1024 * 1024
    message_bytes = MOST_BYTES
    credential_provider: Any = None
    replicas = 0
    on_garbage: OnGarbage | None = None  # set by whoever consumes (worker/consume/consumer.py)

    qos: ClaimQoS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._peeks: dict[str, Peek] = {}
        self._sources: dict[str, Source] = {}
        self._receivers: dict[str, Callable[[Delivery], object]] = {}
        self.peek_handlers: dict[str, Callable[[], bool]] = {}
        self._turn = 0
        self._peek_from = 0.0
        self._of_pool: Any = None
        self.heard: dict[str, int] = {}  # routing key of what was published last -> how many were listening
        super().__init__(*args, **kwargs)
        self.claims = Claims(
            lambda: self.pool,
            index=self._key(self.unacked_index_key),
            unacked=self._key(self.unacked_key),
            visibility_timeout=self.visibility_timeout,
            replicas=self.replicas,
        )

    def _put_fanout(self, exchange: Any, message: Any, routing_key: str, **kwargs: Any) -> None:
        """Publish an event or a broadcast as kombu does, and note how many heard it."""
        if kwargs.get("_publish_batch") is not None:
            super()._put_fanout(exchange, message, routing_key, **kwargs)
            return
        with self.conn_or_acquire() as client:
            topics, payload = self._get_publish_topics(exchange, routing_key), dumps(message)
            self.heard[routing_key] = sum(client.publish(topic, payload) for topic in topics)

    # --- what a strategy needs besides kombu's interface

    def ack_many(self, tags: Sequence[str]) -> bool:
        """Acknowledge claimed messages in one round trip; tell whether more may wait that no answer will tell of.

        So it is after messages that came again: those that have to come alone wait in no list.
        """
        again = any(not claim.fresh for tag in tags if (claim := self.qos.claims.get(tag)))
        self.qos.ack_many(tags)
        return again

    def mark_started(self, tags: Sequence[str]) -> None:
        """From here on these are never handed back to their list: they keep their tags until they are acknowledged."""
        for tag in tags:
            if claim := self.qos.claims.get(tag):
                claim.started = True

    def begin(self, tags: Sequence[str]) -> None:
        """Work on these begins: they could be read. Raises redis.ConnectionError; they come again then."""
        self.mark_started(tags)
        self.claims.note_read([claim for tag in tags if (claim := self.qos.claims.get(tag))])

    def touch(self) -> None:
        """Start the visibility timeout of everything held anew; to be called every second while work has to wait."""
        self.claims.touch(self.qos.claims.values())

    def holds(self, tag: str) -> bool:
        """Tell whether this is a message of a queue, claimed and not yet acknowledged."""
        return tag in self.qos.claims

    def held_for(self, tag: str) -> float:
        """Return the seconds since a message was claimed or touched; 0 for one that is not held."""
        claim = self.qos.claims.get(tag)
        return monotonic() - claim.since if claim else 0.0

    def forget(self, tags: Sequence[str]) -> None:
        """Let go of claims: they come again after the visibility timeout."""
        self.qos.forget(tags)

    # --- waiting

    @property
    def active_queues(self) -> list[str]:  # type: ignore[override]  # the stub says set
        """The queues that kombu takes from with BRPOP: those that need no acknowledgement."""
        return [queue for queue in super().active_queues if queue not in self._peeks]

    def basic_consume(self, queue: str, no_ack: bool, callback: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: FBT001 (kombu's)
        if not no_ack and queue not in self._fanout_queues and queue not in self._peeks:
            peek = Peek(self._create_client(asynchronous=True), self._key(queue))
            self._peeks[queue] = peek
            self._sources[queue] = self._source(queue)
            self.peek_handlers[peek.kind] = lambda: self._on_answer(peek)
        self._receivers[queue] = callback
        return super().basic_consume(queue, no_ack, callback, *args, **kwargs)

    def _create_client(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 (kombu's)
        """Return the client of the pool, always the same: kombu makes one per command, which takes longer than that."""
        if asynchronous:
            return super()._create_client(asynchronous=True)
        if self._of_pool is None or self._of_pool.connection_pool is not self.pool:
            self._of_pool = super()._create_client()
        return self._of_pool

    def _connparams(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 (kombu's)
        """Let a provider tell user and password; kombu takes one from its caller alone, and Celery gives none."""
        parameters = super()._connparams(asynchronous)
        self._process_credential_provider(self.credential_provider, parameters)
        return parameters

    def _size(self, queue: str) -> int:
        """Count what waits. A key of another type counts for nothing: it keeps no worker from starting."""
        pipe = Redis(connection_pool=self.pool).pipeline(transaction=False)
        for name in lists_of(queue, self.sep):
            pipe.llen(self._key(name))
        return sum(length for length in pipe.execute(raise_on_error=False) if isinstance(length, int))

    def _receive_one(self, client: Any) -> Any:
        """Read a broadcast: remote control, or events. Anyone may publish those; what is none stops nothing."""
        try:
            return super()._receive_one(client)
        except (Empty, OSError, RedisError, MemoryError):
            raise
        except Exception:
            log.warning("broadcast_dropped", exc_info=True)
            return None

    def _basic_cancel(self, consumer_tag: str) -> Any:
        queue = self._tag_to_queue.get(consumer_tag, "")
        self._receivers.pop(queue, None)
        peek = self._peeks.pop(queue, None)
        if peek is not None:
            self.peek_handlers.pop(peek.kind)
            self._sources.pop(queue)
            peek.close()
        return super()._basic_cancel(consumer_tag)

    def peeks_due(self) -> Iterator[Peek]:
        """Yield the connections that should be waiting now."""
        if self._may_claim() and monotonic() >= self._peek_from:
            yield from self._peeks.values()

    def _on_answer(self, peek: Peek) -> bool:
        if not peek.read():
            raise Empty
        if not self.claim():
            self._peek_from = monotonic() + (PAUSE if peek.refused else 0)
            raise Empty
        return True

    def tick(self) -> None:
        """Claim what no waiting connection tells of: what expired, and messages of other priorities."""
        for peek in self._peeks.values():
            peek.check()
        expired = self.qos.expired(self.visibility_timeout)
        if expired:
            log.warning("claims_expired", messages=len(expired), waiting="they come again")
            self.forget(expired)
        self.claim()

    def _on_connection_disconnect(self, connection: Any) -> None:
        for peek in self._peeks.values():
            if getattr(peek.client, "connection", None) is connection:
                peek.sent_at = None
        super()._on_connection_disconnect(connection)

    def close(self) -> None:
        """Give back what is held while there still is a connection, then close."""
        if not self.closed and self._qos is not None:
            self.qos.restore_unacked_once()
        for peek in self._peeks.values():
            peek.close()
        super().close()

    # --- claiming

    def claim(self) -> int:
        """Take what may be taken now and deliver it; return how many messages came."""
        if not self._may_claim():
            return 0
        sources = list(self._sources.values())
        first = self._turn % len(sources)
        claims = self.claims.take(
            sources[first:] + sources[:first],
            limit=self.qos.room(),
            max_bytes=self.claim_bytes,
            max_message=self.message_bytes,
        )
        liveness.process.taking()
        if claims:
            self._turn += 1
            metrics.redelivered(claim.fresh for claim in claims)
        self.claims.begin(claims)
        self.qos.claims.update((claim.tag, claim) for claim in claims)
        for claim in claims:
            self._deliver(claim)
        return len(claims)

    def _may_claim(self) -> bool:
        """One claim at a time: limits then hold for a batch, and what has to come alone stays alone."""
        return bool(self._peeks) and not self.closed and not self.qos.claims and self.qos.room() > 0

    def _deliver(self, claim: Claim) -> None:
        if claim.too_large:
            place = f"HGET {self.claims.aside} {claim.tag}"
            reason = f"It has more than {self.message_bytes:,} bytes. All of it is kept in the broker: {place}"
            self._dead_letter(claim, Garbage(DeadLetterCode.TOO_LARGE, reason), readable=False)
        elif claim.begun >= DELIVERIES:
            reason = f"{claim.begun + 1} workers fell silent with it, {DELIVERIES - 1} of them with nothing else."
            self._dead_letter(claim, Garbage(DeadLetterCode.TOO_MANY_DELIVERIES, reason), readable=claim.read > 0)
        else:
            try:
                payload = parse(claim.raw)
            except Garbage as garbage:
                self._dead_letter(claim, garbage)
            else:
                queue = claim.source.queue
                if receive := self._receivers.get(queue):
                    receive(Delivery(payload, self, claim.tag, queue))
                else:  # who received the one before has cancelled
                    self.qos.reject(claim.tag, requeue=True)

    def _dead_letter(self, claim: Claim, garbage: Garbage, *, readable: bool = True) -> None:
        if self.on_garbage is None:
            log.error("garbage_not_kept", tag=claim.tag, code=garbage.code, reason=garbage.message)
            self.forget([claim.tag])
            return
        claim.started = True  # it keeps its tag from here on, so that it is one dead letter whatever happens
        try:
            self.on_garbage(claim.raw, garbage.code, garbage.message, claim.tag, readable=readable)
        except Exception:
            log.exception("garbage_not_kept", tag=claim.tag, code=garbage.code, reason=garbage.message)
            self.forget([claim.tag])

    def _source(self, queue: str) -> Source:
        bindings = cast(Any, self.state).queue_bindings(queue)
        return Source(
            queue=queue,
            lists=tuple(map(self._key, lists_of(queue, self.sep))),
            limit=self.claim_limits.get(queue, MOST_MESSAGES),
            bindings=tuple((binding.exchange, binding.routing_key) for binding in bindings),
        )

    def _key(self, name: str) -> str:
        return f"{self.global_keyprefix}{name}"


class SentinelChannel(Channel, kombu_redis.SentinelChannel):
    """The same on the Redis that sentinels name."""

    from_transport_options = tuple(
        dict.fromkeys((*Channel.from_transport_options, *kombu_redis.SentinelChannel.from_transport_options))
    )

    def _sentinel_managed_pool(self, asynchronous: bool = False) -> Any:  # noqa: FBT001, FBT002 (kombu's)
        pool = super()._sentinel_managed_pool(asynchronous)
        ask_first_who_knew(pool.sentinel_manager)
        return pool
