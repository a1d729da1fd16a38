"""Reading the event stream as a group: several processes share the events, and none is lost with a process that dies.

    with GroupConsumer("redis://broker:6379/0", group="library", name="library-1") as consumer:
        for batch in consumer:
            apply(batch.events)   # in a transaction of yours
            batch.acknowledge()   # after its commit

At least once: a batch that was not acknowledged comes again, to this consumer or, when it is silent, to another of its
group. Events of one student may come in any order. What follows them by stamp (`enrollment.copy`) converges.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Final, Self, cast

from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import TimeoutError as TooLate

from enrollment.consumer.reader import BEGINNING, PAGE, WAIT, Entry, EventsMissed, connect, entries_of, entry_of, lost
from enrollment.events import Event
from enrollment.names import STREAM
from enrollment.pauses import pauses
from enrollment.redis_client import outages

IDLE: Final = 60.0  # seconds of silence after which a consumer's events are another's; longer than any batch takes
_PAUSES: Final = (0.1, 5.0)  # seconds between attempts while Redis is away: the first, and the longest

_NO_GROUP: Final = ("NOGROUP", "no such key", "UNBLOCKED")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EntryBatch:
    """Entries in the order of the stream, as far as one consumer gets them."""

    entries: Sequence[Entry]
    _consumer: "GroupConsumer" = field(repr=False)

    @property
    def events(self) -> list[Event]:
        """The events in it."""
        return [entry.event for entry in self.entries if entry.event is not None]

    @property
    def unreadable(self) -> list[Entry]:
        """The entries that are no event this version can read. They are acknowledged with the others."""
        return [entry for entry in self.entries if entry.event is None]

    def acknowledge(self) -> None:
        """Say that this batch is dealt with: it does not come again. Raises RedisError; then it comes again."""
        self._consumer.acknowledge([entry.id for entry in self.entries])


class GroupConsumer:
    """One member of a consumer group, for one thread. A process that starts again takes its old name and goes on."""

    def __init__(
        self,
        events_url: str,
        *,
        group: str,
        name: str,
        stream: str = STREAM,
        start: str = BEGINNING,
        count: int = PAGE,
        wait: float = WAIT,
        idle: float = IDLE,
    ) -> None:
        """Read for `group` as `name`, which is this process's alone. A new group begins after `start` (`$`: now)."""
        self._client = connect(events_url, wait)
        self._group, self._name, self._stream, self._start = group, name, stream, start
        self._count, self._wait, self._idle = count, wait, idle
        self._joined = False
        self._own: str | None = BEGINNING  # up to where our own unacknowledged entries were read again; None: all
        self._next_look = 0.0  # at what dead consumers hold

    def read(self) -> EntryBatch:
        """Return what comes next: our own of before a crash, then what dead consumers hold, then what is new.

        The batch is empty where nothing came in time. Raises RedisError: then read again; and EventsMissed once for
        entries that were trimmed before this group had dealt with them.
        """
        try:
            with outages(self._client):
                if not self._joined:
                    self._join()
                return EntryBatch(self._again() or self._left_behind() or self._new(), self)
        except (Disconnected, TooLate):
            self._own = BEGINNING  # an answer that got lost may have handed us entries
            raise
        except ResponseError as error:
            if not str(error).startswith(_NO_GROUP):
                raise
            self._joined = False  # the stream was deleted, and the group with it
            raise EventsMissed(self._stream, self._start) from error

    def __iter__(self) -> Iterator[EntryBatch]:
        """Yield batches that are not empty, for ever; wait while Redis is away. Raises EventsMissed."""
        waits = pauses(*_PAUSES)
        while True:
            try:
                batch = self.read()
            except AuthenticationError:  # redis-py calls it a lost connection; waiting does not help
                raise
            except (Disconnected, TooLate) as error:
                pause = next(waits)
                log.warning("event_stream_away: %s; the next attempt is in %s s", error, pause)
                sleep(pause)
                continue
            waits = pauses(*_PAUSES)
            if batch.entries:
                yield batch

    def acknowledge(self, entry_ids: Sequence[str]) -> None:
        """Strike entries off what the group holds for this consumer. Raises RedisError."""
        if entry_ids:
            with outages(self._client):
                self._client.xack(self._stream, self._group, *entry_ids)

    def close(self) -> None:
        """Hang up. What is not acknowledged comes again."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _join(self) -> None:
        try:
            self._client.xgroup_create(self._stream, self._group, id=self._start, mkstream=True)
        except ResponseError as error:
            if not str(error).startswith("BUSYGROUP"):  # it is there already
                raise
        self._joined = True

    def _position(self) -> str:
        """Return up to where the group has been handed entries."""
        groups = cast("Sequence[Mapping[str, Any]]", self._client.xinfo_groups(self._stream))
        for group in groups:
            if group["name"] == self._group:
                return str(group["last-delivered-id"])
        raise ResponseError("NOGROUP the group is gone")  # as Redis says it of a read

    def _again(self) -> list[Entry]:
        if self._own is None:
            return []
        entries = self._hand_out(self._own, block=None)
        self._own = entries[-1][0] if entries else None
        return self._there(entries)

    def _left_behind(self) -> list[Entry]:
        if monotonic() < self._next_look:
            return []
        reply: Any = self._client.xautoclaim(
            self._stream, self._group, self._name, int(self._idle * 1000), start_id=BEGINNING, count=self._count
        )
        entries, gone = reply[1], reply[2] if len(reply) > 2 else []  # noqa: PLR2004 - Redis before 7 has two parts
        if not entries:
            self._next_look = monotonic() + self._idle / 2
        if gone:  # Redis has struck them off already
            self._own = BEGINNING  # what is still there is ours now, and comes again
            raise EventsMissed(self._stream, gone[0])
        return self._there(entries)

    def _new(self) -> list[Entry]:
        position = self._position()
        entries = self._hand_out(">", block=max(1, int(self._wait * 1000)))
        # After the read, so that nothing can be trimmed in between.
        if lost(self._client, self._stream, position):
            self._own = BEGINNING  # what was handed to us now comes again
            raise EventsMissed(self._stream, position)
        return self._there(entries)

    def _hand_out(self, after: str, *, block: int | None) -> list[tuple[str, Mapping[str, str] | None]]:
        reply: Any = self._client.xreadgroup(
            self._group, self._name, {self._stream: after}, count=self._count, block=block
        )
        return list(entries_of(reply))

    def _there(self, entries: Sequence[tuple[str, Mapping[str, str] | None]]) -> list[Entry]:
        """Return the entries that the stream still has. Raises EventsMissed for those it has not, once."""
        gone = [entry_id for entry_id, fields in entries if not fields]
        if gone:
            self.acknowledge(gone)
            self._own = BEGINNING  # the others are ours, and come again
            raise EventsMissed(self._stream, gone[0])
        return [entry_of(entry_id, fields) for entry_id, fields in entries if fields]
