"""From the outbox to the event stream: right after the commit, or when the stream is there again."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Final
from uuid import UUID

import structlog
from sqlalchemy import Connection, Engine

from enrollment.fold import Record
from enrollment.pauses import pauses
from models import outbox, replication
from models.db_errors import describe, is_outage
from tasks.transaction import Committed
from worker import metrics
from worker.publishing import Publisher, RedisError

GRACE: Final = 2.0  # seconds that a committed batch is left to the worker that wrote it
BATCHES: Final = 20  # outbox rows per transaction of the relay
BUDGET: Final = 1.0  # seconds after which a relay lets its worker get back to commands; the next one goes on
# Seconds between attempts while the stream is away, doubled up to the longest. Workers look every 2 s, so events go on
# within 5 s of its return, or 8 s where it did not even refuse.
_PAUSES: Final = (0.5, 3.0)
_REST: Final = 4  # a pause is at least so many times what the attempt took, up to the longest: commands wait meanwhile

log = structlog.get_logger(__name__)


class Relay:
    """Publishes committed batches once. What it cannot publish stays in the outbox."""

    def __init__(self, engine: Engine, publisher: Publisher) -> None:
        self._engine = engine
        self._publisher = publisher
        self._backlog = False  # something of ours may be in the outbox: it goes before what comes next
        self._waits = pauses(*_PAUSES)
        self._not_before = 0.0

    def mark_backlog(self) -> None:
        """Take it that the outbox holds something: a commit whose answer was lost left its events there."""
        self._backlog = True

    def look_again(self) -> None:
        """Take it that the stream may be there again, and on another server: the next attempt is made at once."""
        self._not_before = 0.0
        self._publisher.disconnect()

    def publish(self, connection: Connection, batch: Committed) -> None:
        """Publish a batch right after its commit, on `connection`, and whatever was left before it."""
        if not batch.records:
            return
        if self._backlog:
            self._catch_up(connection, older_than=0)  # the batch is in the outbox, too
            return
        with self._outages():
            self._send(batch.batch_id, batch.records)
            outbox.settle_at_once(connection, batch.batch_id)

    def catch_up(self, *, older_than: float | None = None) -> int:
        """Publish what is committed and not yet sent; return the number of events added.

        Stops after about a second; the next call goes on. What an outage stops is left, too, and what another relay has
        at hand. What was committed in the last seconds is left to the worker that committed it,
        unless that may be this one (`older_than` None).
        """
        if monotonic() < self._not_before:
            return 0
        if older_than is None:
            older_than = 0 if self._backlog else GRACE
        with self._outages(), self._engine.connect() as connection:
            return self._catch_up(connection, older_than=older_than)
        return 0

    def _catch_up(self, connection: Connection, *, older_than: float) -> int:
        added = 0
        if monotonic() < self._not_before:
            return added
        until = monotonic() + BUDGET
        with self._outages():
            while True:
                events, last = self._page(connection, older_than)
                added += events
                if last and older_than == 0:
                    self._backlog = False
                if last or monotonic() > until:
                    break
        if added:
            log.info("events_relayed", events=added)
        return added

    def _page(self, connection: Connection, older_than: float) -> tuple[int, bool]:
        """Publish some; return how many events were added, and whether these were the last."""
        with connection.begin():
            batches = outbox.pending(connection, older_than=older_than, batches=BATCHES)
            if batches:
                replication.confirm_apart(self._engine, connection)
            added = sum(self._send(batch.batch_id, batch.records, batch.events) for batch in batches)
            outbox.settle(connection, [batch.batch_id for batch in batches])
        return added, len(batches) < BATCHES

    def _send(self, batch_id: UUID, records: Sequence[Record], events: Sequence[str] = ()) -> int:
        """Publish one batch. Every success counts: a stream that goes away again and again is there in between."""
        begin = monotonic()
        try:
            with metrics.stage("publish"):
                added = self._publisher.publish(batch_id, records, events)
        except RedisError as error:
            now = monotonic()
            pause = next(self._waits) * random.uniform(0.75, 1)  # noqa: S311 - workers take turns
            pause = max(pause, min(_REST * (now - begin), _PAUSES[-1]))
            metrics.waited("stream", now - begin)
            self._not_before = now + pause
            waiting = "events are kept in the outbox"
            log.warning("event_stream_away", error=describe(error), seconds=round(pause, 1), waiting=waiting)
            raise
        self._waits = pauses(*_PAUSES)
        metrics.published(records)
        return added

    @contextmanager
    def _outages(self) -> Iterator[None]:
        try:
            yield
        except RedisError:
            self._backlog = True
        except Exception as error:
            if not is_outage(error):
                raise
            log.warning("outbox_away", error=describe(error))  # no pause: the next batch waits for the database anyway
            self._backlog = True
