"""What cannot become commands is kept together, as commands are applied: a transaction each would delay all."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import structlog

from enrollment.errors import DeadLetterCode
from models.dead_letters import NewDeadLetter
from tasks.caution import RETRY, Blocked
from tasks.ports import ServicePort
from worker import liveness, metrics
from worker.consume.monitoring import Monitor
from worker.transport import Channel, rabbitmq
from worker.transport.limits import MOST_INFLATED

log = structlog.get_logger(__name__)


class BuryingConsumer(Protocol):
    """What burying needs of the consumer (`worker.consume.consumer`)."""

    burials: "Burials"
    monitor: Monitor
    hub: Any
    task_consumer: Any

    @property
    def service(self) -> ServicePort: ...
    def claim_soon(self) -> None: ...
    def settled(self, deliveries: Sequence[Any]) -> None: ...
    def keep_alive(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Burial:
    """A dead letter to be kept, and what is acknowledged then: a delivery, or the entry with this tag that is none."""

    letter: NewDeadLetter
    tag: Any
    delivery: Any = None


class Burials:
    """Dead letters that gather while the event loop reads, for one connection to the broker."""

    def __init__(self, consumer: BuryingConsumer) -> None:
        self._consumer = consumer
        self._waiting: list[Burial] = []
        self._bytes = 0

    def add(self, burial: Burial) -> None:
        """Keep this with the others of its claim; sooner where they are large: a claim counts compressed bytes."""
        self._waiting.append(burial)
        self._bytes += len(burial.letter.payload)
        if not self._consumer.hub or self._bytes > MOST_INFLATED:
            self._flush()
        elif len(self._waiting) == 1:
            self._consumer.hub.call_later(0, self._flush)

    def _flush(self) -> None:
        burials, self._waiting, self._bytes = self._waiting, [], 0
        self._keep(burials)

    def _keep(self, burials: Sequence[Burial]) -> None:
        """Keep these, then acknowledge them. They come again if they could not be kept."""
        consumer = self._consumer
        if not burials or consumer.burials is not self:  # their connection is gone: they come again
            return
        channel = consumer.task_consumer.channel
        if isinstance(channel, Channel):
            channel.mark_started([burial.tag for burial in burials])
        try:
            consumer.service.dead_letter([burial.letter for burial in burials], consumer.keep_alive)
        except Blocked:
            self._keep_later(burials)
        except Exception:
            if len(burials) > 1:  # one that breaks must not take the others with it
                for burial in burials:
                    self._keep([burial])
                return
            log.exception("dead_letter_not_kept", key=burials[0].letter.key, code=burials[0].letter.code)
            liveness.process.failed()
            if isinstance(channel, Channel):
                channel.forget([burials[0].tag])
        else:
            self._kept(burials)

    def _kept(self, burials: Sequence[Burial]) -> None:
        for letter in (burial.letter for burial in burials):
            log.warning(
                "dead_letter", key=letter.key.removeprefix("delivery "), code=letter.code, reason=letter.message
            )
            metrics.refused(letter.code)
        channel = self._consumer.task_consumer.channel
        unsettled = [it for it in burials if it.delivery is None or not it.delivery.acknowledged]
        if isinstance(channel, Channel | rabbitmq.Channel):
            channel.ack_many([burial.tag for burial in unsettled])
        else:
            for burial in unsettled:
                burial.delivery.ack()
        self._consumer.settled([burial.delivery for burial in unsettled if burial.delivery is not None])
        self._consumer.claim_soon()
        for burial in burials:
            letter = burial.letter
            if burial.delivery is not None and letter.code not in (DeadLetterCode.REVOKED, DeadLetterCode.EXPIRED):
                self._consumer.monitor.refused(
                    str(letter.headers.get("id", burial.tag)), f"{letter.code}: {letter.message}"
                )

    def _keep_later(self, burials: Sequence[Burial]) -> None:
        """Leave messages alone while the dead letters are locked, and claim others meanwhile."""
        log.warning("dead_letters_locked", messages=len(burials), waiting="they come again")
        channel = self._consumer.task_consumer.channel
        if isinstance(channel, Channel):
            channel.forget([burial.tag for burial in burials])
            self._consumer.claim_soon()
        elif self._consumer.hub:
            self._consumer.hub.call_later(RETRY, self._keep, burials)
        else:
            for burial in burials:
                burial.delivery.requeue()
