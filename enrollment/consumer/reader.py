"""Reading the event stream from a position that the reader keeps: with its copy, in one transaction.

    with Reader("redis://broker:6379/0", position=copy.position) as reader:
        while True:
            entries = reader.read()
            copy.take(entries, reader.position)

A position that is kept beside what was made of the events is never ahead of it or behind, whatever is killed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Self, cast

from pydantic import ValidationError
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

from enrollment.addresses import redis_url
from enrollment.consumer.feed import Feed, FeedGone
from enrollment.errors import EnrollmentError
from enrollment.events import Event
from enrollment.names import STREAM
from enrollment.redis_client import client as redis_client
from enrollment.redis_client import outages

BEGINNING: Final = "0-0"  # the position before the first entry
FIELD: Final = "event"
FEED: Final = "feed:"  # with what follows, a position in the change feed, which is below the stream
PAGE: Final = 500  # entries read at once
WAIT: Final = 2.0  # seconds that Redis holds a question open while nothing comes
_LATE: Final = 60 * 60 * 1000  # milliseconds after its command's commit when an event may still be published
_ANSWER: Final = 5.0  # seconds, beyond that, for Redis to answer

_Entries = Sequence[tuple[str, Mapping[str, str]]]


class EventsMissed(EnrollmentError):
    """Entries were trimmed from the stream, or lost with it, before they were read."""

    def __init__(self, stream: str, position: str) -> None:
        super().__init__(
            f"Entries of {stream} after {position} may be gone before they were read. Begin the copy anew with what "
            "the tables hold (`enrollment snapshot`), and give the reader a feed that reaches further back, keep more "
            "events on the stream (ENROLLMENT_EVENTS_MAXLEN) or read more often."
        )
        self.position = position


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the stream. `text` is what it holds; `event` is None where that is none we can read."""

    id: str
    text: str
    event: Event | None


def entry_of(entry_id: str, fields: Mapping[str, str]) -> Entry:
    """Return an entry as it was read. Anyone who may write to the stream can put anything there."""
    text = fields.get(FIELD, "")
    try:
        return Entry(entry_id, text, Event.model_validate_json(text))
    except ValidationError:
        return Entry(entry_id, text, None)


def feed_entry(text: str) -> Entry:
    """Return an event of the feed as an entry, whose id says no place in the stream."""
    entry = entry_of("", {FIELD: text})
    return Entry(f"{FEED}{entry.event.id if entry.event else ''}", text, entry.event)


def feed_place(position: str) -> str:
    """Return where the feed begins for who was at this place of the stream: an event may be published late."""
    milliseconds = order(position)[0] - _LATE
    return f"since={datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()}" if milliseconds > 0 else ""


def stream_end(client: Redis, stream: str) -> str:
    """Return the place after the last entry of the stream."""
    try:
        info = cast("Mapping[str, Any]", client.xinfo_stream(stream))
    except ResponseError:  # there is no such key
        return BEGINNING
    return str(info["last-generated-id"])


def connect(url: str, wait: float) -> Redis:
    """Return a client for questions that are held open for `wait` seconds. It tries once: callers repeat.

    Raises AddressError.
    """
    return redis_client(
        redis_url(url),
        decode_responses=True,
        encoding_errors="replace",  # what is not UTF-8 is no event, and is handed out as unreadable
        socket_timeout=wait + _ANSWER,
        socket_connect_timeout=_ANSWER,
        socket_keepalive=True,
        health_check_interval=15,
        retry=Retry(NoBackoff(), 0),
    )


class Reader:
    """Reads the stream from a position, for one thread at a time. After an error of Redis, read again.

    `position` is where it is. It moves with each `read`: keep it when the entries are dealt with. A reader that starts
    from a kept position gets everything after it. With a `feed`, a reader whose entries are gone from the stream reads
    on there, and comes back to the stream by itself; around such a change, events may come twice.
    """

    def __init__(
        self,
        events_url: str,
        *,
        stream: str = STREAM,
        position: str = BEGINNING,
        wait: float = WAIT,
        feed: Feed | None = None,
    ) -> None:
        """Read after `position`; wait about `wait` seconds for something new."""
        self._feed = feed
        self.position = position
        self._client = connect(events_url, wait)
        self._stream = stream
        self._wait = wait
        self._told = False  # of the gap at this position

    def read(self, count: int = PAGE, wait: float | None = None) -> list[Entry]:
        """Return the next entries, at most `count`; none where nothing came in time.

        Raises RedisError, and EventsMissed once for each gap: whoever reads on all the same gets what is left.
        """
        if self.position.startswith(FEED):
            return self._read_feed(count)
        seconds = self._wait if wait is None else min(wait, self._wait)
        block = max(1, int(seconds * 1000))  # 0 would be for ever
        with outages(self._client):
            reply: Any = self._client.xread({self._stream: self.position}, count=count, block=block)
        # After the read, so that nothing can be trimmed in between.
        if not self._told and lost(self._client, self._stream, self.position):
            if self._feed is not None:
                self.position = f"{FEED}{feed_place(self.position)}"
                return self._read_feed(count)
            self._told = True
            raise EventsMissed(self._stream, self.position)
        entries = [entry_of(*entry) for entry in entries_of(reply)]
        if entries:
            self.position = entries[-1].id
            self._told = False
        return entries

    def _read_feed(self, count: int) -> list[Entry]:
        """Return a page of the feed; at its end, go back to where the stream ended before that was seen."""
        feed = self._feed
        if feed is None:
            raise EventsMissed(self._stream, self.position)
        try:
            page = feed.read(self.position.removeprefix(FEED), count)
            if not page.texts and not page.more:
                end = stream_end(self._client, self._stream)
                ahead = feed.page(count=count, after=page.cursor, ahead="true")
                if not ahead.more:
                    self.position = end
                    return [feed_entry(text) for text in ahead.texts]
        except FeedGone as error:
            raise EventsMissed(self._stream, self.position) from error
        self.position = f"{FEED}{page.cursor}"
        return [feed_entry(text) for text in page.texts]

    def begin(self, loaded: datetime) -> str:
        """Move to where a copy begins whose rows were loaded at that time; return the position.

        That is an hour earlier, where the stream reaches back so far: an event may be published late. Older events do
        not harm (`enrollment.copy`). Raises EventsMissed when the stream begins after the loading, RedisError.
        """
        at = int(loaded.timestamp() * 1000)
        before = cast("_Entries", self._client.xrevrange(self._stream, max=at - _LATE, count=1))
        if before or not lost(self._client, self._stream, BEGINNING):
            self.position = before[0][0] if before else BEGINNING
            return self.position
        [first] = cast("_Entries", self._client.xrange(self._stream, count=1)) or [(BEGINNING, {})]
        if not 0 < order(first[0])[0] < at:
            raise EventsMissed(self._stream, f"{at}-0")
        self.position = first[0]
        return self.position

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def entries_of(reply: Any) -> _Entries:
    """Return the entries in an answer to XREAD or XREADGROUP of one stream, which is a list or a map by protocol."""
    if not reply:
        return []
    if isinstance(reply, dict):
        [pages] = reply.values()
        return [entry for page in pages for entry in page]
    [(_, entries)] = reply
    return cast("_Entries", entries)


def lost(client: Redis, stream: str, position: str) -> bool:
    """Tell whether entries after `position` may be gone. Sure where it says no; a yes may be one entry too early."""
    try:
        info = cast("Mapping[str, Any]", client.xinfo_stream(stream))
    except ResponseError:  # there is no such key
        return position != BEGINNING
    return is_gap(info, position)


def is_gap(info: Mapping[str, Any], position: str) -> bool:
    """Tell the same from what XINFO STREAM says."""
    if position == BEGINNING:  # Redis before 7 does not count what was added
        return int(info.get("entries-added", info["length"])) > int(info["length"])
    last = order(info["last-generated-id"])
    if order(position) >= last:
        return order(position) > last  # of a stream that was there before this one
    first = info["first-entry"]
    return first is None or order(first[0]) > order(position)


def order(entry_id: str) -> tuple[int, int]:
    """Return what ids of entries are ordered by."""
    time, _, number = entry_id.partition("-")
    return int(time), int(number or 0)


# For scripts in Redis: whether one id of an entry is before another (as `order`), and a flat answer as a map.
LUA: Final = """
local function before(a, b)
  local time_a, number_a = string.match(a, '(%d+)-(%d+)')
  local time_b, number_b = string.match(b, '(%d+)-(%d+)')
  time_a, time_b = tonumber(time_a), tonumber(time_b)
  return time_a < time_b or (time_a == time_b and tonumber(number_a) < tonumber(number_b))
end
local function map(flat)
  local found = {}
  for i = 1, #flat, 2 do found[flat[i]] = flat[i + 1] end
  return found
end
"""
