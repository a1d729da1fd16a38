"""Task events for Flower: per message, in as few PUBLISHes as there are batches, and none that nobody asked for."""

from collections import Counter
from collections.abc import Sequence
from reprlib import Repr
from typing import Any, Final

from celery.worker import state

from tasks.messages import Message
from tasks.results import is_failure

BUFFERED: Final = 3_000  # events in one PUBLISH at most; a batch of 1,000 messages makes as many
_ARGUMENTS: Final = 100  # characters shown of them

_repr = Repr()
_repr.maxlist = 6
_repr.maxstring = 40


class Monitor:
    """What became of each message, for `celery events`, Flower and `inspect stats`."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        if dispatcher is not None:
            dispatcher.buffer_limit = BUFFERED

    @property
    def enabled(self) -> bool:
        """Whether somebody wants task events: `-E`, or switched on by remote control."""
        dispatcher = self._dispatcher
        return bool(dispatcher and dispatcher.enabled and (not dispatcher.groups or "task" in dispatcher.groups))

    def started(self, messages: Sequence[Message]) -> None:
        """Tell that these are being applied; goes out with what became of them, or when the wait gets long."""
        state.total_count.update(Counter(message.task for message in messages))
        state.all_total_count[0] += len(messages)
        if not self.enabled:
            return
        for message in messages:
            self._received(message)
            self._dispatcher.send("task-started", uuid=message.task_id)

    def finished(self, messages: Sequence[Message], outcomes: Sequence[str], seconds: float) -> None:
        """Tell what became of these."""
        if not self.enabled:
            return
        for message, outcome in zip(messages, outcomes, strict=True):
            if is_failure(outcome):
                self._dispatcher.send("task-failed", uuid=message.task_id, exception=outcome, traceback="")
            else:
                self._dispatcher.send("task-succeeded", uuid=message.task_id, result=outcome, runtime=seconds)
        self.flush()

    def refused(self, task_id: str, reason: str) -> None:
        """Tell of a message that became a dead letter before it could be applied."""
        if self.enabled:
            self._dispatcher.send("task-failed", uuid=task_id, exception=reason, traceback="")

    def withdrawn(self, message: Message, *, expired: bool) -> None:
        """Tell of a message that was revoked, or that expired."""
        if self.enabled:
            self._received(message)
            self._dispatcher.send("task-revoked", uuid=message.task_id, terminated=False, signum=None, expired=expired)

    def flush(self) -> None:
        """Send now what is buffered."""
        if self.enabled:
            self._dispatcher.flush()

    def _received(self, message: Message) -> None:
        headers = message.headers
        self._dispatcher.send(
            "task-received",
            uuid=message.task_id,
            name=message.task,
            args=_repr.repr(list(message.args))[:_ARGUMENTS],
            kwargs=_repr.repr(dict(message.kwargs))[:_ARGUMENTS],
            root_id=headers.get("root_id"),
            parent_id=headers.get("parent_id"),
            retries=0,
            eta=None,
            expires=headers.get("expires"),
        )
