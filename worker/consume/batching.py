"""Group commit: what one claim brings is one batch. No timer: an idle worker starts at once, a busy one gathers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any, Protocol

import structlog
from celery.worker import state

from enrollment.errors import DeadLetterCode
from tasks.arrival import Arrival
from tasks.caution import RETRY, Blocked
from tasks.messages import Message
from tasks.ports import ServicePort
from worker import liveness, metrics, tracing
from worker.consume.decoding import Refused, decode_message, expired
from worker.consume.monitoring import Monitor
from worker.transport import Channel, rabbitmq
from worker.transport.limits import MOST_INFLATED

log = structlog.get_logger(__name__)


class BatchConsumer(Protocol):
    """What gathering needs of the consumer (`worker.consume.consumer`)."""

    batch: "Batch"
    monitor: Monitor
    hub: Any
    prefetch_multiplier: int  # messages in one batch at most

    @property
    def service(self) -> ServicePort: ...
    def dead_letter(self, delivery: Any, code: DeadLetterCode, reason: str) -> None: ...
    def claim_soon(self) -> None: ...
    def settled(self, deliveries: Sequence[Any]) -> None: ...
    def keep_alive(self) -> None: ...


class PeriodicStrategy:
    """What Celery calls for a message of beat: nothing that the message says is heeded, and it cannot come twice."""

    def __init__(self, consumer: BatchConsumer, act: Callable[[], object]) -> None:
        self._consumer = consumer
        self._act = act

    def __call__(self, delivery: Any, *_: object) -> None:
        """Acknowledge, then act when the event loop is free."""
        delivery.ack()
        if self._consumer.hub:
            self._consumer.hub.call_later(0, self._act)
        else:
            self._act()


class Strategy:
    """What Celery calls for each message of a task: it goes into the batch of the consumer."""

    def __init__(self, task: Any, consumer: BatchConsumer) -> None:
        self._task: str = task.name
        self._batch = consumer.batch

    def __call__(self, delivery: Any, *_: object) -> None:
        """Add one message. Raises Refused."""
        self._batch.add(self._task, delivery)


@dataclass(slots=True)
class _Gathered:
    delivery: Any
    message: Message


class Batch:
    """The messages that gather while the event loop reads, for one connection to the broker."""

    def __init__(self, consumer: BatchConsumer) -> None:
        self._consumer = consumer
        self._entries: list[_Gathered] = []
        self._bytes = 0
        self._most = consumer.prefetch_multiplier
        self.held = False  # a batch waits for a table; what gathers meanwhile follows it

    def add(self, task: str, delivery: Any) -> None:
        """Add a message; the batch is applied as soon as all of its claim are here. Raises Refused."""
        message, size = decode_message(task, delivery)
        full = len(self._entries) >= self._most or self._bytes + size > MOST_INFLATED
        if self._entries and full:  # what comes compressed is small in the claim only, and RabbitMQ knows no batches
            if not self.held:
                self.flush()
            elif isinstance(delivery.channel, Channel):
                _release([delivery])
                return
        self._bytes += size
        self._entries.append(_Gathered(delivery, message))
        if len(self._entries) > 1 or self.held:
            return
        if self._consumer.hub:
            # Not call_soon: what a timer brings (an expired claim) would wait for the next event on a socket.
            self._consumer.hub.call_later(0, self.flush)
        else:
            self.flush()

    def flush(self) -> None:
        """Apply what is here. Messages of a connection that is gone come again; at shutdown they stay in the queue."""
        entries, self._entries, self._bytes = self._entries, [], 0
        if self.goes_on():
            due = [entry for entry in entries if not self._withdrawn(entry)]
            if due:
                _start([entry.delivery for entry in due])
                self._consumer.monitor.started([entry.message for entry in due])
                self._apply(due, Arrival())

    def goes_on(self) -> bool:
        """Tell whether work may begin: on this connection, and no shutdown is under way."""
        return self._consumer.batch is self and not _stopping()

    def _apply(self, entries: Sequence[_Gathered], arrival: Arrival) -> None:
        """Apply these, or try again in a moment; the event loop runs meanwhile, so that the worker answers."""
        done = self._attempt(entries, arrival)
        if not done and self._consumer.hub:
            self.held = True
            self._consumer.hub.call_later(RETRY, self._try_again, entries, arrival)
            return
        while not done:
            sleep(RETRY)
            self._consumer.keep_alive()
            done = self._attempt(entries, arrival)

    def _try_again(self, entries: Sequence[_Gathered], arrival: Arrival) -> None:
        self.held = False
        if self.goes_on():
            self._consumer.keep_alive()
            self._apply(entries, arrival)
            if self._entries and not self.held:
                self.flush()

    def _attempt(self, entries: Sequence[_Gathered], arrival: Arrival) -> bool:
        """Apply these and acknowledge them; tell whether they are done with."""
        consumer, deliveries = self._consumer, [entry.delivery for entry in entries]
        messages = [entry.message for entry in entries]
        begin = monotonic()
        try:
            with tracing.batch(messages) as traced:
                outcomes = consumer.service.handle(traced.messages, consumer.keep_alive, arrival)
                traced.came_of(outcomes)
        except Blocked:
            return False
        except Exception:  # nobody foresaw it: the messages come again, one by one, and end as dead letters
            log.exception("batch_failed", messages=len(messages))
            liveness.process.failed()
            _release(deliveries)
            return True
        with metrics.stage("acknowledge"):
            again = _acknowledge(deliveries)
        seconds = monotonic() - begin
        metrics.batch(len(messages), seconds)
        liveness.process.finished()
        consumer.settled(deliveries)
        if again:
            consumer.claim_soon()
        consumer.monitor.finished(messages, outcomes, seconds)
        trace = {"trace_id": traced.trace_id} if traced.trace_id else {}
        log.info("batch_applied", messages=len(messages), seconds=round(seconds, 4), **trace)
        return True

    def _withdrawn(self, entry: _Gathered) -> bool:
        """Make a dead letter of a message that was revoked or that has expired."""
        consumer, message = self._consumer, entry.message
        if message.headers.get("expires") is None and message.task_id not in state.revoked:
            return False
        try:
            late = expired(message.headers, datetime.now(UTC))
        except Refused as refused:
            consumer.dead_letter(entry.delivery, refused.code, refused.reason)
            return True
        if late:
            code, reason = DeadLetterCode.EXPIRED, f"It expired at {message.headers['expires']}, before it was applied."
        elif message.task_id in state.revoked:
            code, reason = DeadLetterCode.REVOKED, "It was revoked by remote control before it was applied."
        else:
            return False  # it expires later
        consumer.monitor.withdrawn(message, expired=late)
        consumer.dead_letter(entry.delivery, code, reason)
        return True


def _stopping() -> bool:
    # The flags hold an exit code, which may be 0.
    return any(flag is not None and flag is not False for flag in (state.should_stop, state.should_terminate))


def _start(deliveries: Sequence[Any]) -> None:
    channel = deliveries[0].channel
    if isinstance(channel, Channel):
        channel.begin([delivery.delivery_tag for delivery in deliveries])


def _acknowledge(deliveries: Sequence[Any]) -> bool:
    """Acknowledge; tell whether to claim again at once."""
    channel = deliveries[0].channel
    if isinstance(channel, Channel):
        return channel.ack_many([delivery.delivery_tag for delivery in deliveries])
    if isinstance(channel, rabbitmq.Channel):
        channel.ack_many([delivery.delivery_tag for delivery in deliveries])
        return False
    for delivery in deliveries:
        delivery.ack()
    return False


def _release(deliveries: Sequence[Any]) -> None:
    channel = deliveries[0].channel
    if isinstance(channel, Channel):
        channel.forget([delivery.delivery_tag for delivery in deliveries])
    else:
        for delivery in deliveries:
            delivery.requeue()
