"""Reading the event stream as a group: several processes share the events, and none is lost with a process that dies.

    with GroupConsumer("redis://broker:6379/0", group="library", name="library-1") as consumer:
        for batch in consumer:
            apply(batch.events)   # in a transaction of yours
            batch.acknowledge()   # after its commit

At least once: a batch that was not acknowledged comes again, to this consumer or, when it is silent, to another of its
group. Events of one student may come in any order. What follows them by stamp (`enrollment.copy`) converges.

Entries that were trimmed before the group had dealt with them come from the change feed, where there is one: one member
reads it, in pages, and the others go on with the stream.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from redis.exceptions import AuthenticationError, ResponseError
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import TimeoutError as TooLate

from enrollment.consumer.feed import Feed, FeedGone
from enrollment.consumer.missed import Found, Notes, Part
from enrollment.consumer.reader import (
    BEGINNING,
    FEED,
    PAGE,
    WAIT,
    Entry,
    EventsMissed,
    connect,
    entries_of,
    entry_of,
    feed_entry,
    feed_place,
    stream_end,
)
from enrollment.events import Event
from enrollment.names import STREAM
from enrollment.pauses import pauses
from enrollment.redis_client import outages

IDLE: Final = 60.0  # seconds of silence after which a consumer's events are another's; longer than any batch takes
_PAUSES: Final = (0.1, 5.0)  # seconds between attempts while Redis is away: the first, and the longest

_OLDEST: Final = "since=1970-01-01T00:00:00Z"  # where the feed says so if older events are no longer kept
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


class _FeedPage(NamedTuple):
    """A page of the feed that is handed out. `place` is after it; at the end of the feed it is empty."""

    part: Part
    place: str
    end: str  # of the stream before that was seen
    ids: set[str]  # of its entries that are not acknowledged


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
        feed: Feed | None = None,
    ) -> None:
        """Read for `group` as `name`, which is this process's alone. A new group begins after `start` (`$`: now).

        What the group missed on the stream is read from `feed`.
        """
        self._client = connect(events_url, wait)
        self._group, self._name, self._stream, self._start = group, name, stream, start
        self._count, self._wait, self._idle = count, wait, idle
        self._feed, self._notes = feed, Notes(self._client, stream, group)
        self._noted = True  # that something is missing: perhaps; Redis knows
        self._told: Part | None = None  # of what is missing
        self._page: _FeedPage | None = None
        self._joined = False
        self._own: str | None = BEGINNING  # up to where our own unacknowledged entries were read again; None: all
        self._next_look = 0.0  # at what dead consumers hold

    def read(self) -> EntryBatch:
        """Return what comes next: our own of before a crash, what dead consumers hold, what was missed, what is new.

        The batch is empty where nothing came in time. Raises RedisError: then read again; and EventsMissed for entries
        that were trimmed before this group had dealt with them and that no feed has, until who was told reads on.
        """
        try:
            with outages(self._client):
                if not self._joined:
                    self._join()
                self._read_on()
                return EntryBatch(self._again() or self._left_behind() or self._missed() or self._new(), self)
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
        held = [entry_id for entry_id in entry_ids if not entry_id.startswith(FEED)]
        with outages(self._client):
            if held:
                self._client.xack(self._stream, self._group, *held)
            if self._page and len(held) < len(entry_ids):
                self._page.ids.difference_update(entry_ids)
                if not self._page.ids:
                    self._move_on(self._page)

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

    def _again(self) -> list[Entry]:
        if self._own is None:
            return []
        entries = self._hand_out(self._own)
        self._own = entries[-1][0] if entries else None
        return self._there(entries)

    def _left_behind(self) -> list[Entry]:
        if monotonic() < self._next_look:
            return []
        entries, missing = self._notes.inherit(self._name, int(self._idle * 1000), self._count)
        if missing:
            self._own = BEGINNING  # what is still there is ours now, and comes again
            self._noted = True
            return []
        if not entries:
            self._next_look = monotonic() + self._idle / 2
        return self._there(entries)

    def _missed(self) -> list[Entry]:
        """Return a page of the feed, where something is missing and no other member is at it."""
        part = self._notes.claim(self._name, int(self._idle * 1000)) if self._noted else None
        self._noted = part is not None
        if part is None:
            return []
        try:
            return self._feed_page(part)
        except FeedGone as error:
            self._told = part
            raise EventsMissed(self._stream, part.after) from error

    def _feed_page(self, part: Part) -> list[Entry]:
        if self._feed is None:
            raise FeedGone("There is no feed.")
        page = self._feed.read(part.place or feed_place(part.after) or _OLDEST, self._count)
        texts, place, end = page.texts, page.cursor, ""
        if not texts and not page.more:
            end = stream_end(self._client, self._stream)  # before the last look, so that this has all up to there
            ahead = self._feed.page(count=self._count, after=page.cursor, ahead="true")
            if not ahead.more:
                texts, place = ahead.texts, ""
        entries = [feed_entry(text) for text in texts]
        self._page = _FeedPage(part, place, end, {entry.id for entry in entries})
        if not entries:
            self._move_on(self._page)
        return entries

    def _move_on(self, page: _FeedPage) -> None:
        self._page = None
        if page.place:
            self._notes.move(page.part, page.place)
        else:
            self._notes.strike(page.part, page.end)

    def _read_on(self) -> None:
        """Strike off what somebody was told is missing, and has dealt with before reading on."""
        if self._told:
            self._notes.strike(self._told, BEGINNING)
            self._told = None

    def _new(self) -> list[Entry]:
        found = self._notes.take(self._name, self._count)
        if not found.entries and not found.gap:
            # This waits, and moves nothing: a group that a waiting XREADGROUP moves past a gap would not notice it.
            block = max(1, int(self._wait * 1000))  # 0 would be for ever
            if not self._client.xread({self._stream: found.position}, count=1, block=block):
                return []
            found = self._notes.take(self._name, self._count)
        self._noted = found.noted
        if found.gap:
            self._own = BEGINNING  # what was handed to us now comes again
            return self._missed()
        return self._there(found.entries)

    def _hand_out(self, after: str) -> Found:
        reply: Any = self._client.xreadgroup(self._group, self._name, {self._stream: after}, count=self._count)
        return list(entries_of(reply))

    def _there(self, entries: Found) -> list[Entry]:
        """Return the entries; none, where some are gone from the stream. That is noted, and the others come again."""
        gone = [entry_id for entry_id, fields in entries if not fields]
        if gone:
            self._notes.note(gone[0])
            self.acknowledge(gone)  # after that, so that a kill in between loses nothing
            self._own, self._noted = BEGINNING, True
            return []
        return [entry_of(entry_id, fields) for entry_id, fields in entries if fields]
