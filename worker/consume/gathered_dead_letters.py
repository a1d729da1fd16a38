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


class GatheringConsumer(Protocol):
    """What gathering them needs of the consumer (`worker.consume.consumer`)."""

    gathered: "GatheredDeadLetters"
    monitor: Monitor
    hub: Any
    task_consumer: Any

    @property
    def service(self) -> ServicePort: ...
    def claim_soon(self) -> None: ...
    def settled(self, deliveries: Sequence[Any]) -> None: ...
    def keep_alive(self) -> None: ...


@dataclass(frozen=True, slots=True)
class GatheredDeadLetter:
    """A dead letter to be kept, and what is acknowledged then: a delivery, or the entry with this tag that is none."""

    letter: NewDeadLetter
    tag: Any
    delivery: Any = None


class GatheredDeadLetters:
    """Dead letters that gather while the event loop reads, for one connection to the broker."""

    def __init__(self, consumer: GatheringConsumer) -> None:
        self._consumer = consumer
        self._waiting: list[GatheredDeadLetter] = []
        self._bytes = 0

    def add(self, one: GatheredDeadLetter) -> None:
        """Keep this with the others of its claim; sooner where they are large: a claim counts compressed bytes."""
        self._waiting.append(one)
        self._bytes += len(one.letter.payload)
        if not self._consumer.hub or self._bytes > MOST_INFLATED:
            self._flush()
        elif len(self._waiting) == 1:
            self._consumer.hub.call_later(0, self._flush)

    def _flush(self) -> None:
        gathered, self._waiting, self._bytes = self._waiting, [], 0
        self._keep(gathered)

    def _keep(self, gathered: Sequence[GatheredDeadLetter]) -> None:
        """Keep these, then acknowledge them. They come again if they could not be kept."""
        consumer = self._consumer
        if not gathered or consumer.gathered is not self:  # their connection is gone: they come again
            return
        channel = consumer.task_consumer.channel
        if isinstance(channel, Channel):
            channel.mark_started([each.tag for each in gathered])
        try:
            consumer.service.dead_letter([each.letter for each in gathered], consumer.keep_alive)
        except Blocked:
            self._keep_later(gathered)
        except Exception:
            if len(gathered) > 1:  # one that breaks must not take the others with it
                for each in gathered:
                    self._keep([each])
                return
            log.exception("dead_letter_not_kept", key=gathered[0].letter.key, code=gathered[0].letter.code)
            liveness.process.failed()
            if isinstance(channel, Channel):
                channel.forget([gathered[0].tag])
        else:
            self._kept(gathered)

    def _kept(self, gathered: Sequence[GatheredDeadLetter]) -> None:
        for letter in (each.letter for each in gathered):
            log.warning(
                "dead_letter", key=letter.key.removeprefix("delivery "), code=letter.code, reason=letter.message
            )
            metrics.refused(letter.code)
        channel = self._consumer.task_consumer.channel
        unsettled = [it for it in gathered if it.delivery is None or not it.delivery.acknowledged]
        if isinstance(channel, Channel | rabbitmq.Channel):
            channel.ack_many([each.tag for each in unsettled])
        else:
            for each in unsettled:
                each.delivery.ack()
        self._consumer.settled([each.delivery for each in unsettled if each.delivery is not None])
        self._consumer.claim_soon()
        for each in gathered:
            letter = each.letter
            if each.delivery is not None and letter.code not in (DeadLetterCode.REVOKED, DeadLetterCode.EXPIRED):
                self._consumer.monitor.refused(
                    str(letter.headers.get("id", each.tag)), f"{letter.code}: {letter.message}"
                )

    def _keep_later(self, gathered: Sequence[GatheredDeadLetter]) -> None:
        """Leave messages alone while the dead letters are locked, and claim others meanwhile."""
        log.warning("dead_letters_locked", messages=len(gathered), waiting="they come again")
        channel = self._consumer.task_consumer.channel
        if isinstance(channel, Channel):
            channel.forget([each.tag for each in gathered])
            self._consumer.claim_soon()
        elif self._consumer.hub:
            self._consumer.hub.call_later(RETRY, self._keep, gathered)
        else:
            for each in gathered:
                each.delivery.requeue()
