"""Celery's consumer, except that no message is ever dropped: what cannot become a command becomes a dead letter."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property
from time import monotonic, sleep
from typing import Any, Final

import structlog
from amqp import RecoverableConnectionError
from celery.worker import consumer as stock
from celery.worker import state
from redis import Redis, RedisError
from vine import promise

from enrollment.errors import DeadLetterCode
from models.session import meanwhile
from tasks.commands import CommandTask
from tasks.periodic import RELAY, RETENTION, PeriodicTask
from tasks.ports import ServicePort, service_of
from worker import liveness, metrics
from worker import rabbitmq as queues
from worker.consume.batching import Batch, PeriodicStrategy, Strategy
from worker.consume.dead_letters import dead_letter_of_entry, dead_letter_of_message
from worker.consume.decoding import Refused, key_of
from worker.consume.gathered_dead_letters import GatheredDeadLetter, GatheredDeadLetters
from worker.consume.inflating import inflate
from worker.consume.monitoring import Monitor
from worker.consume.suspects import Suspects
from worker.lookout import Lookout, Search
from worker.settings import Settings
from worker.transport import Channel, rabbitmq
from worker.transport.envelope import fault_in_headers, short
from worker.transport.limits import MOST_ID

RELAY_EVERY: Final = 2.0  # seconds
LOOK_EVERY: Final = 1.0  # seconds between steps of the search for lists that nobody reads
RECONNECT: Final = {"interval_start": 1.0, "interval_step": 0.5, "interval_max": 2.0}  # Celery's own grow to 30 s
REFUSED: Final = 5  # seconds between looks at a queue that is of another kind
SIGN: Final = 1.0  # seconds between signs of life while the messages of a claim are looked at one by one
BUILT_IN: Final = "celery."  # tasks that every app has (map, chord, …); no producer of ours has a use for them

_Blueprint: Any = stock.Consumer.Blueprint

log = structlog.get_logger(__name__)


class Consumer(stock.Consumer):
    """Set as `worker_consumer`. One per process; its batch and monitor are made anew for each connection."""

    class Blueprint(_Blueprint):  # type: ignore[misc]
        """Celery's steps without the queues for delays, 28 of them on RabbitMQ: commands wait in the database."""

        default_steps = tuple(it for it in _Blueprint.default_steps if "delayed_delivery" not in it)

    batch: Batch
    gathered: GatheredDeadLetters
    monitor: Monitor
    lookout: Lookout
    hub: Any
    heart: Any
    timer: Any
    prefetch_multiplier: int
    connection: Any
    task_consumer: Any
    event_dispatcher: Any
    connection_errors: tuple[type[Exception], ...]
    strategies: dict[str, Callable[..., object]]
    suspects: Suspects | None = None  # on RabbitMQ
    _last_beat = 0.0
    _releasing = False  # a timer is set

    @property
    def service(self) -> ServicePort:
        """The use cases of this process."""
        return service_of(self.app)

    def update_strategies(self) -> None:
        """Start afresh after each connect: what was gathered before comes again, and its timers are gone."""
        self.batch = Batch(self)
        self.gathered = GatheredDeadLetters(self)
        if self.suspects is not None:
            self.suspects.forgive()
        of_rabbitmq = isinstance(self.connection.transport, rabbitmq.Transport)
        self.suspects = Suspects.connect(self, Settings.load()) if of_rabbitmq else None
        self._releasing = False
        self.service.look_again()
        self.monitor = Monitor(self.event_dispatcher)
        self.lookout = Lookout(self._search)
        self.timer.call_repeatedly(RELAY_EVERY, self.relay)
        self.timer.call_repeatedly(LOOK_EVERY, self.look_out)
        super().update_strategies()
        acts = {RELAY: self.relay, RETENTION: self.retain}
        for name, task in self.app.tasks.items():
            if isinstance(task, CommandTask):
                self.strategies[name] = Strategy(task, self)
            elif isinstance(task, PeriodicTask):
                self.strategies[name] = PeriodicStrategy(self, acts[name])

    def create_task_handler(self, promise: type[promise] = promise) -> Callable[[Any], None]:  # noqa: ARG002 (Celery's)
        """Return what takes each delivery. Whatever is wrong with one is that one's fault and stops nothing."""
        if isinstance(self.task_consumer.channel, Channel):
            self.task_consumer.channel.on_garbage = self._dead_letter_entry
        suspects = self.suspects
        if suspects is None:
            return self.receive

        def on_message(delivery: Any) -> None:
            if delivery.delivery_info.get("redelivered"):
                suspects.add(delivery)
            else:
                self.receive(delivery)

        return on_message

    def receive(self, delivery: Any) -> None:
        """Take a delivery into the batch, or make a dead letter of it. Raises what a lost connection raises."""
        self.keep_alive_if_due(delivery.delivery_tag)
        try:
            self.strategies[self._task_of(delivery)](delivery)
        except Refused as refused:
            self.dead_letter(delivery, refused.code, refused.reason)
        except self._lost:
            raise
        except Exception as error:
            log.exception("message_failed", task_id=str(delivery.headers.get("id"))[:MOST_ID])
            reason = f"It could not be processed: {short(error)}"
            self.dead_letter(delivery, DeadLetterCode.PROCESSING_FAILED, reason)

    @cached_property
    def _lost(self) -> tuple[type[Exception], ...]:
        # KeyError is in kombu's list; here it says that a message lacks something.
        return (MemoryError, *(error for error in self.connection_errors if error is not KeyError))

    def _task_of(self, delivery: Any) -> str:
        """Return the name of the task that a delivery is for. Raises Refused."""
        fault = fault_in_headers(delivery.headers)
        if fault:
            raise Refused(DeadLetterCode.NOT_A_MESSAGE, f"This is not a Celery message of protocol 2: {fault}.")
        task: str = delivery.headers["task"]
        if task not in self.strategies or task.startswith(BUILT_IN):
            raise Refused(DeadLetterCode.UNKNOWN_TASK, f"There is no task {task[:100]!r}; correct the name and resend.")
        return task

    def dead_letter(self, delivery: Any, code: DeadLetterCode, reason: str) -> None:
        """Keep a delivery as a dead letter, then acknowledge it. It comes again if it could not be kept."""
        key = key_of(delivery)
        letter = dead_letter_of_message(delivery.headers, delivery.body, key=key, code=code, reason=reason)
        self.gathered.add(GatheredDeadLetter(letter, delivery.delivery_tag, delivery))

    def _dead_letter_entry(
        self, raw: bytes, code: DeadLetterCode, message: str, tag: str, *, readable: bool = True
    ) -> None:
        """Keep what is no delivery (worker.transport.OnGarbage)."""
        self.keep_alive_if_due(tag)
        letter = dead_letter_of_entry(raw, key=tag, code=code, reason=message, readable=readable)
        self.gathered.add(GatheredDeadLetter(letter, tag))

    def settled(self, deliveries: Sequence[Any]) -> None:
        """Take note that these are done with."""
        if self.suspects is not None:
            self.suspects.settle(deliveries)

    def claim_soon(self) -> None:
        """Claim as soon as nothing is held any more: what has to come alone waits in no list that would tell of it."""
        channel = self.task_consumer.channel
        if self.hub and isinstance(channel, Channel):
            self.hub.call_later(0, channel.claim)

    def relay(self) -> None:
        """Publish what was left behind. Not only on a message from beat: that may have to wait behind others."""
        with meanwhile(self.keep_alive):
            self.service.relay()
        if not isinstance(self.task_consumer.channel, Channel) and self.task_consumer.queues:
            liveness.process.taking()  # RabbitMQ pushes: that the loop runs and is subscribed is all that can be shown
        if not self._releasing:
            self.release()

    def retain(self) -> None:
        """Remove some of what is older than the retention."""
        with meanwhile(self.keep_alive):
            self.service.retain()

    def release(self) -> None:
        """Apply what was put off, and look again soon while there is some."""
        self._releasing = False
        with meanwhile(self.keep_alive):
            pause = self.service.release()
        if pause is not None and self.hub:
            self._releasing = True
            self.hub.call_later(pause, self.release)

    def look_out(self) -> None:
        """Warn, from time to time, of lists that producers with other transport options fill and nobody reads."""
        if isinstance(self.task_consumer.channel, Channel):
            with suppress(*self.connection_errors, RedisError):  # one that may not SCAN does without
                self.lookout.step()

    def _search(self) -> Search:
        channel = self.task_consumer.channel
        return Search(Redis(connection_pool=channel.pool), separator=channel.sep, prefix=channel.global_keyprefix)

    def keep_alive(self) -> None:
        """Keep the claims, show signs of life, and honour a shutdown: every second while a batch has to wait.

        Raises celery.exceptions.WorkerShutdown or WorkerTerminate: the messages are then the next worker's.
        """
        state.maybe_shutdown()
        liveness.process.applying()
        channel = self.task_consumer.channel
        with suppress(*self.connection_errors):  # then they expire, and come again
            if isinstance(channel, Channel | rabbitmq.Channel):
                channel.touch()
        if self.suspects is not None:
            self.suspects.forgive()
        with suppress(*self.connection_errors):
            if self.heart and monotonic() - self._last_beat >= self.heart.interval:
                self._last_beat = monotonic()
                self.heart._send("worker-heartbeat", retry=False)  # noqa: SLF001 (there is no public way)
            self.monitor.flush()

    def keep_alive_if_due(self, tag: str) -> None:
        """Keep alive where a message of a claim has waited for the others for a second. Raises as `keep_alive`."""
        channel = self.task_consumer.channel
        if isinstance(channel, Channel) and channel.held_for(tag) >= SIGN:
            self.keep_alive()

    def ensure_connected(self, conn: Any) -> Any:
        """Wait for the broker, as Celery does it, and show that it is this that is waited for."""
        ensure = conn.ensure_connection

        def wait_visibly(errback: Any, max_retries: int | None, *, callback: Callable[[], None]) -> Any:
            def every_second() -> None:
                liveness.process.waiting()
                callback()

            return ensure(errback, max_retries, callback=every_second, **RECONNECT)

        conn.ensure_connection = wait_visibly
        with metrics.waiting("broker"):
            return super().ensure_connected(conn)

    def connect(self) -> Any:
        """Connect; on RabbitMQ see that the queues are of the right kind, or wait until they are."""
        connection = super().connect()
        if isinstance(connection.transport, rabbitmq.Transport):
            try:
                queues.declare(connection, self.app.amqp.queues.values())
            except queues.QueueRefused as refused:
                for _ in range(REFUSED):
                    liveness.process.waiting()
                    state.maybe_shutdown()
                    sleep(1)
                raise RecoverableConnectionError(str(refused)) from refused  # Celery says it, and connects again
        return connection

    # --- what Celery would log and drop

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        reason = short(exc)
        if isinstance(message.channel, Channel) and not message.channel.holds(message.delivery_tag):
            log.warning("broadcast_dropped", error=reason)  # remote control, which is no message of a queue
            return
        try:
            inflate(message.body, message.headers)
        except ValueError as error:  # kombu only says that it does not know the method
            reason = str(error)
        self.dead_letter(message, DeadLetterCode.UNDECODABLE_BODY, f"The body cannot be decoded: {reason}.")
