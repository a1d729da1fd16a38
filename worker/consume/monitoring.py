"""Task events for Flower: per message, in as few PUBLISHes as there are batches, and none while nobody listens."""

from collections import Counter
from collections.abc import Mapping, Sequence
from time import monotonic, time
from typing import Any, Final

from celery.utils.time import utcoffset
from celery.worker import state
from kombu.serialization import register, register_json
from kombu.utils.json import dumps
from pydantic_core import to_json

from tasks.messages import Message
from tasks.results import Failure
from worker.transport import Channel

ADDRESS: Final = "enrollment_metrics"  # field of a heartbeat: host and port where the worker serves its metrics
REVISION: Final = "enrollment_revision"  # another: the newest revision of the schema that the worker knows
SERIALIZER: Final = "enrollment-events"  # plain JSON, made three times as fast
BUFFERED: Final = 3_000  # events in one PUBLISH at most; a batch of 1,000 messages makes as many
UNHEARD: Final = 1.0  # seconds in which no task events are made after some that nobody heard
TOPIC: Final = "task.multi"  # under which they are published
_ARGUMENTS: Final = 100  # characters shown of them
_ID: Final = 255  # characters shown of an id that a producer gave


class Monitor:
    """What became of each message, for `celery events`, Flower and `inspect stats`."""

    def __init__(self, dispatcher: Any) -> None:
        self._dispatcher = dispatcher
        self._not_before = 0.0
        self._telling = False  # of the batch that was started
        if dispatcher is not None:
            register(SERIALIZER, _to_json, None, content_type="application/json", content_encoding="utf-8")
            register_json()  # `application/json` stays the name of what kombu has for it
            dispatcher.serializer = SERIALIZER
            dispatcher.buffer_limit = BUFFERED

    @property
    def enabled(self) -> bool:
        """Whether somebody wants task events, by `-E` or remote control, and somebody may be listening."""
        dispatcher = self._dispatcher
        wanted = bool(dispatcher and dispatcher.enabled and (not dispatcher.groups or "task" in dispatcher.groups))
        return wanted and monotonic() >= self._not_before

    def started(self, messages: Sequence[Message]) -> None:
        """Tell that these are being applied; goes out with what became of them, or when the wait gets long."""
        state.total_count.update(Counter([message.task for message in messages]))
        state.all_total_count[0] += len(messages)
        self._telling = self.enabled
        if self._telling:
            self._received(messages)
            self._report("task-started", [{"uuid": message.task_id} for message in messages])

    def finished(self, messages: Sequence[Message], outcomes: Sequence[str], seconds: float) -> None:
        """Tell what became of these, if it was told that they started."""
        if not (self._telling and self.enabled):
            return
        done: list[Mapping[str, Any]] = []
        failed: list[Mapping[str, Any]] = []
        for message, outcome in zip(messages, outcomes, strict=True):
            if isinstance(outcome, Failure):
                failed.append(_failure(message.task_id, outcome))
            else:
                done.append({"uuid": message.task_id, "result": outcome, "runtime": seconds})
        self._report("task-succeeded", done)
        self._report("task-failed", failed)
        self.flush()

    def refused(self, task_id: str, reason: str) -> None:
        """Tell of a message that became a dead letter before it could be applied."""
        if self.enabled:
            self._report("task-failed", [_failure(task_id, reason)])

    def withdrawn(self, message: Message, *, expired: bool) -> None:
        """Tell of a message that was revoked, or that expired."""
        if self.enabled:
            self._received([message])
            fields = {"uuid": message.task_id, "terminated": False, "signum": None, "expired": expired}
            self._report("task-revoked", [fields])

    def flush(self) -> None:
        """Send now what is buffered."""
        if not self.enabled:
            return
        self._dispatcher.flush()
        channel = getattr(self._dispatcher.producer, "channel", None)  # no producer: events were switched off just now
        if isinstance(channel, Channel) and channel.heard.pop(TOPIC, None) == 0:
            self._not_before = monotonic() + UNHEARD

    def _received(self, messages: Sequence[Message]) -> None:
        """Tell what came. The arguments are shown as their producer wants them shown, as Celery does it."""
        self._report(
            "task-received",
            [
                {
                    "uuid": message.task_id,
                    "name": message.task,
                    "args": _shown(message.headers.get("argsrepr")),
                    "kwargs": _shown(message.headers.get("kwargsrepr")),
                    "root_id": _id(message.headers.get("root_id")),
                    "parent_id": _id(message.headers.get("parent_id")),
                    "retries": 0,
                    "eta": None,
                    "expires": _id(message.headers.get("expires")),
                }
                for message in messages
            ],
        )

    def _report(self, kind: str, reported: Sequence[Mapping[str, Any]]) -> None:
        """Buffer an event for each: what `send` of the dispatcher does, but once for what they have in common."""
        if not reported:
            return
        dispatcher = self._dispatcher
        common = {
            "type": kind,
            "timestamp": time(),
            "clock": dispatcher.clock.forward(),
            "hostname": dispatcher.hostname,
            "utcoffset": utcoffset(),
            "pid": dispatcher.pid,
        }
        buffer = dispatcher._group_buffer["task"]  # noqa: SLF001 - `send`, the public way, costs ten times as much
        buffer += [{**common, **fields} for fields in reported]
        if len(buffer) >= dispatcher.buffer_limit or not dispatcher.on_send_buffered:
            dispatcher.flush()
        else:
            dispatcher.on_send_buffered()  # the event loop flushes when it is free


def _to_json(value: object) -> str:
    try:
        return to_json(value).decode()
    except ValueError:  # a lone surrogate, say, in a header of a single message: kombu's way writes it
        return dumps(value)


def _failure(task_id: str, reason: str) -> Mapping[str, Any]:
    return {"uuid": task_id, "exception": reason, "traceback": ""}


def _id(value: object) -> str | None:
    return value[:_ID] if isinstance(value, str) else None


def _shown(arguments: object) -> str:
    return str(arguments or "")[:_ARGUMENTS]
