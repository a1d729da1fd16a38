"""What a channel holds: claimed, and not yet acknowledged."""

from collections.abc import Sequence
from time import monotonic
from typing import Any, Final

import structlog

from worker.transport import kombu_redis
from worker.transport.claims import Claim

MOST_MESSAGES: Final = 1_000  # in one claim, where no prefetch limit is set

log = structlog.get_logger(__name__)


class QoS(kombu_redis.QoS):
    """What this channel has claimed and not yet acknowledged."""

    channel: Any  # `worker.transport.channel.Channel`, which imports this module

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.claims: dict[str, Claim] = {}

    def room(self) -> int:
        """Return how many messages may be taken now."""
        free: int | None = self.can_consume_max_estimate()
        return MOST_MESSAGES if free is None else free

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge one message. Celery logs what fails here and goes on, so the claim is let go of in any case."""
        if delivery_tag in self.claims:
            try:
                self.ack_many([delivery_tag])
            finally:
                self.forget([delivery_tag])
        else:
            super().ack(delivery_tag)

    def ack_many(self, tags: Sequence[str]) -> None:
        """Acknowledge claimed messages in one round trip."""
        if tags:
            self.channel.claims.acknowledge(tags)
            self.forget(tags)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:  # noqa: FBT001, FBT002 (kombu's signature)
        """Give the message back, as it was and next in turn, or drop it."""
        if delivery_tag not in self.claims:
            super().reject(delivery_tag, requeue)
        elif requeue:
            self.channel.claims.give_back([self.claims[delivery_tag]], requeue=True)
            self.forget([delivery_tag])
        else:
            self.ack_many([delivery_tag])

    def forget(self, tags: Sequence[str]) -> None:
        """Let go of claims without a word to Redis: they come again after the visibility timeout."""
        for tag in tags:
            self.claims.pop(tag, None)

    def expired(self, visibility_timeout: float) -> list[str]:
        """Return the tags of claims that were held too long: any worker may have them by now."""
        now = monotonic()
        return [claim.tag for claim in self.claims.values() if now - claim.since > visibility_timeout]

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Give back what is held: at shutdown, and after a lost connection. What fails here comes again by itself."""
        held = list(self.claims.values())
        self.forget(list(self.claims))
        if held:
            try:
                given_back = self.channel.claims.give_back(held)
                log.info("messages_given_back", messages=given_back)
            except self.channel.connection_errors as error:
                log.warning(
                    "messages_not_given_back", messages=len(held), error=str(error), waiting="until they expire"
                )
        super().restore_unacked_once(stderr)

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: what expired is claimed again under its tag, never pushed back (claim.lua)."""
