"""The event stream, read once per process, for everyone who waits for a command or watches the stream.

No polling: one blocked XREAD. Whoever waits registers before the command is sent, so its event cannot be missed; while
the stream is away nothing arrives, and what waits looks at the stored outcome when its time is over.
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final
from uuid import UUID

import structlog
from pydantic import ValidationError
from redis.exceptions import RedisError

from enrollment.events import Event
from enrollment.pauses import pauses
from gateway.event_stream import Stream, StreamEntry

_PAUSES: Final = (0.1, 5.0)  # seconds between attempts while Redis is away: the first, and the longest
_AGAIN: Final = 0.2  # seconds until the listener is cancelled once more: redis-py may swallow a cancellation
_TURNS: Final = 5  # of the event loop, until who had waited has asked for what else it needs
BACKLOG: Final = 2000  # events a watcher may be behind before it is cut off; it resumes where it was

log = structlog.get_logger(__name__)


class Watcher:
    """What one open stream of events has still to send."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[StreamEntry | None] = asyncio.Queue(BACKLOG + 1)
        self.open = True

    def put(self, entry: StreamEntry) -> None:
        """Take an entry; one too many closes the watcher, whose client comes again."""
        if not self.open:
            return
        if self._queue.qsize() < BACKLOG:
            self._queue.put_nowait(entry)
        else:
            self.close()

    def close(self) -> None:
        """End the stream after what it has already."""
        if self.open:
            self.open = False
            self._queue.put_nowait(None)

    async def get(self, seconds: float) -> StreamEntry | None:
        """Return the next entry; None at the end. Raises TimeoutError after `seconds` without one."""
        if not self._queue.empty():
            return self._queue.get_nowait()
        return await asyncio.wait_for(self._queue.get(), seconds)


class EventListener:
    """The one reader of the stream."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.closed = False
        self._live = asyncio.Event()
        self._position = ""
        self._waiters: defaultdict[UUID, set[asyncio.Future[Event | None]]] = defaultdict(set)
        self._watchers: set[Watcher] = set()
        self._streams: Counter[str] = Counter()
        self._task: asyncio.Task[None] | None = None

    @property
    def live(self) -> bool:
        """Whether it is connected."""
        return self._live.is_set() and self._task is not None and not self._task.done()

    async def connected(self, seconds: float) -> None:
        """Wait until it is connected, at most so long."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._live.wait(), seconds)

    @property
    def waiting(self) -> int:
        """How many requests wait for an outcome."""
        return sum(map(len, self._waiters.values()))

    @property
    def watching(self) -> int:
        """How many streams of events are open."""
        return self._streams.total()

    def watching_of(self, client: str) -> int:
        """How many of them are one client's."""
        return self._streams[client]

    @contextmanager
    def counted(self, client: str) -> Iterator[None]:
        """Count a stream of a client's as open."""
        self._streams[client] += 1
        try:
            yield
        finally:
            self._streams[client] -= 1
            if not self._streams[client]:
                del self._streams[client]

    def start(self) -> None:
        """Start to listen, from what comes next."""
        self._task = asyncio.create_task(self._listen(), name="event listener")

    def release(self) -> None:
        """Let everyone go: watchers end, and waiters give up as if their time were over."""
        self.closed = True
        for watcher in self._watchers:
            watcher.close()
        for futures in self._waiters.values():
            for future in futures:
                if not future.done():
                    future.set_result(None)

    async def stop(self) -> None:
        """Let everyone go and hang up."""
        self.release()
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task], timeout=_AGAIN)

    @contextmanager
    def expecting(self, command_ids: Sequence[UUID]) -> "Iterator[Expected]":
        """Expect the events of these commands, from now on and as long as the block lasts."""
        loop = asyncio.get_running_loop()
        futures: dict[UUID, asyncio.Future[Event | None]] = {
            command_id: loop.create_future() for command_id in command_ids
        }
        for command_id, future in futures.items():
            self._waiters[command_id].add(future)
        try:
            yield Expected(futures.values())
        finally:
            for command_id, future in futures.items():
                future.cancel()
                self._waiters[command_id].discard(future)
                if not self._waiters[command_id]:
                    del self._waiters[command_id]

    @contextmanager
    def watched(self) -> Iterator[Watcher]:
        """Give a watcher of everything that comes from now on."""
        watcher = Watcher()
        self._watchers.add(watcher)
        if self.closed:
            watcher.close()
        try:
            yield watcher
        finally:
            self._watchers.discard(watcher)

    async def _listen(self) -> None:
        waits = pauses(*_PAUSES)
        while True:
            try:
                await self._read()
                waits = pauses(*_PAUSES)
            except (RedisError, OSError) as error:
                if self.live:
                    log.warning("event_stream_away", error=str(error).partition("\n")[0])
                self._live.clear()
                await asyncio.sleep(next(waits))
            except Exception:  # nobody foresaw it; those who wait must not wait for ever
                log.exception("event_listener_failed", position=self._position)
                self._live.clear()
                await asyncio.sleep(next(waits))

    async def _read(self) -> None:
        if not self.live:
            end = await self.stream.end()
            if not self._position:
                self._position = end
            elif self._position != "0-0" and await self.stream.has_gap(self._position):
                log.warning("events_missed", after=self._position)
                self._position = end
                for watcher in self._watchers:  # they come again, and are told
                    watcher.close()
            self._live.set()
        for entry in await self.stream.next(self._position):
            self._position = entry.id
            self._dispatch(entry)
        for _ in range(_TURNS):  # those who waited go first
            await asyncio.sleep(0)

    def _dispatch(self, entry: StreamEntry) -> None:
        for watcher in self._watchers:
            watcher.put(entry)
        if not self._waiters:
            return
        try:
            event = Event.model_validate_json(entry.event)
        except ValidationError:  # of a version to come, or nobody's
            if _command_of(entry) in self._waiters:
                log.warning("event_unreadable", entry=entry.id)
            return
        for future in self._waiters.get(event.id, ()):
            if not future.done():
                future.set_result(event)


class Expected:
    """Events that are to come."""

    def __init__(self, futures: Collection[asyncio.Future[Event | None]]) -> None:
        self._futures = futures
        self._events: list[Event | None] = []

    async def wait(self, seconds: float) -> bool:
        """Wait until all have come, at most `seconds`; tell whether they have."""
        timer = asyncio.get_running_loop().call_later(seconds, self._give_up)
        try:
            self._events = [await future for future in self._futures]
        finally:
            timer.cancel()
        return None not in self._events

    def _give_up(self) -> None:
        for future in self._futures:
            if not future.done():
                future.set_result(None)

    def events(self) -> list[Event]:
        """Return the events, in the order of the commands. Only after all have come."""
        return [event for event in self._events if event is not None]


def _command_of(entry: StreamEntry) -> UUID | None:
    """Return whose event this is, which cannot be read as a whole; None for what is no event."""
    try:
        return UUID(json.loads(entry.event)["id"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
