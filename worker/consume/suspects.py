"""Messages that RabbitMQ delivers again: one of them may be what ends the workers that receive it.

RabbitMQ counts for all that a lost connection held, most of which nobody had touched. What counts here is what a worker
had begun when it fell silent, as with Redis (worker/transport/claims.py), in a key beside the event stream:

| key | type | expires | what |
|---|---|---|---|
| `{<stream>}:begun:<key of the message>` | string | after a day | how often it was begun after it had come again |
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol, Self

import structlog
from redis import Redis, RedisError

from enrollment.errors import DeadLetterCode
from tasks.caution import RETRY
from worker.consume.decoding import key_of
from worker.publishing import connect
from worker.settings import Settings
from worker.transport.channel import DELIVERIES

REMEMBERED: Final = 24 * 60 * 60  # seconds
_PATIENCE: Final = 1.0  # seconds for Redis to answer: messages wait meanwhile

log = structlog.get_logger(__name__)


class Examiner(Protocol):
    """What this needs of the consumer (`worker.consume.consumer`)."""

    hub: Any
    prefetch_multiplier: int
    suspects: "Suspects | None"

    @property
    def batch(self) -> Any: ...
    def receive(self, delivery: Any) -> None: ...
    def dead_letter(self, delivery: Any, code: DeadLetterCode, reason: str) -> None: ...


class Suspects:
    """Those of one connection: together once, apart from new ones, then each alone, then a dead letter."""

    def __init__(self, consumer: Examiner, client: Redis, stream: str) -> None:
        self._consumer = consumer
        self._client = client
        self._prefix = f"{{{stream}}}:begun:"
        self._waiting: list[Any] = []
        self._begun: set[str] = set()  # by this process, and not done with

    @classmethod
    def connect(cls, consumer: Examiner, settings: Settings) -> Self:
        """Return the suspects of a consumer. Nothing is connected yet. Raises SettingsError."""
        url, credentials = settings.require_events_url(), settings.events_credentials()
        return cls(consumer, connect(url, patience=_PATIENCE, credentials=credentials), settings.events_stream)

    def add(self, delivery: Any) -> None:
        """Take a message that came again; it is looked at when the event loop is free."""
        self._waiting.append(delivery)
        if len(self._waiting) == 1:
            self._soon(0)

    def settle(self, deliveries: Iterable[Any]) -> None:
        """Forget what is done with."""
        if self._begun:
            self._forget(self._begun & {key_of(delivery) for delivery in deliveries})

    def forgive(self) -> None:
        """Forget all that was begun: this process lives, so it was none of these."""
        self._forget(set(self._begun))

    def _soon(self, seconds: float) -> None:
        if self._consumer.hub:
            self._consumer.hub.call_later(seconds, self._examine)
        else:
            self._examine()

    def _examine(self) -> None:
        waiting, self._waiting = self._waiting, []
        if self._consumer.suspects is not self:  # of a connection that is gone: they come again on the next
            return
        batch = self._consumer.batch
        batch.flush()
        counts = self._counts([key_of(delivery) for delivery in waiting])
        together = [delivery for delivery, begun in zip(waiting, counts, strict=True) if not begun]
        most = self._consumer.prefetch_multiplier
        groups = [together[start : start + most] for start in range(0, len(together), most)]
        groups += [[delivery] for delivery, begun in zip(waiting, counts, strict=True) if begun]
        limits = dict(zip(map(id, waiting), counts, strict=True))
        for number, group in enumerate(groups):
            if batch.held:  # by a lock of somebody else's: these follow
                self._waiting += [delivery for later in groups[number:] for delivery in later]
                self._soon(RETRY)
                return
            if batch.goes_on():
                self._begin([key_of(delivery) for delivery in group])
                for delivery in group:
                    self._receive(delivery, limits[id(delivery)])
                batch.flush()

    def _receive(self, delivery: Any, begun: int) -> None:
        if begun >= DELIVERIES:
            reason = f"{begun + 1} workers fell silent with it, {begun - 1} of them with nothing else."
            self._consumer.dead_letter(delivery, DeadLetterCode.TOO_MANY_DELIVERIES, reason)
        else:
            self._consumer.receive(delivery)

    # --- what Redis keeps; while it is away, nothing counts

    def _counts(self, keys: Sequence[str]) -> list[int]:
        try:
            found: Any = self._client.mget([self._prefix + key for key in keys])
        except RedisError as error:
            log.info("deliveries_not_counted", error=str(error).partition("\n")[0])
            return [0] * len(keys)
        return [int(count or 0) for count in found]

    def _begin(self, keys: Sequence[str]) -> None:
        try:
            pipe: Any = self._client.pipeline(transaction=False)
            for key in keys:
                pipe.incr(self._prefix + key).expire(self._prefix + key, REMEMBERED)
            pipe.execute()
        except RedisError as error:
            log.info("deliveries_not_counted", error=str(error).partition("\n")[0])
        else:
            self._begun.update(keys)

    def _forget(self, keys: set[str]) -> None:
        if keys:
            self._begun -= keys
            try:
                self._client.delete(*[self._prefix + key for key in keys])
            except RedisError as error:
                log.info("deliveries_not_counted", error=str(error).partition("\n")[0])
