"""After a restore: what database and stream do not know of each other, and how each is told (docs/adr/0017)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from redis import Redis
from redis.exceptions import ResponseError
from sqlalchemy import Connection

from enrollment.consumer.reader import Entry, entry_of, order
from enrollment.events import Event
from enrollment.restoring import is_whole
from models import epoch, outbox, reconciling
from models.epoch import Epoch
from models.reconciling import Owed
from tasks.putting_back import Lost, lost_of, put_back

PAGE: Final = 1000  # entries read at once
# What was processed so long after the first entry was published was not trimmed off before it: clocks may differ.
_CLOCKS: Final = timedelta(minutes=1)
_ALWAYS: Final = datetime.min.replace(tzinfo=UTC)
_NAMED: Final = 10  # ids of the catalog that are named


@dataclass(slots=True)
class Stream:
    """The event stream as it was found: its ends, and whether entries were ever trimmed off."""

    client: Redis
    key: str
    trimmed: bool = False
    first: str | None = None
    last: str = "0-0"  # of entries that were ever there

    @classmethod
    def of(cls, client: Redis, key: str) -> "Stream":
        """Look at a stream; there may be none. Raises RedisError."""
        try:
            info: Any = client.xinfo_stream(key)
        except ResponseError as error:
            if "no such key" in str(error):
                return cls(client, key)
            raise
        first = info["first-entry"]
        added = info.get("entries-added")  # since Redis 7.0
        trimmed = added is None or added > info["length"]
        return cls(client, key, trimmed, first[0] if first else None, info["last-generated-id"])

    def pages(self) -> Iterator[list[Entry]]:
        """Yield the entries of that time, some at a time. Raises RedisError."""
        after = "-"
        while True:
            found: Any = self.client.xrange(self.key, after, self.last, count=PAGE)
            if not found:
                return
            yield [entry_of(*entry) for entry in found]
            after = f"({found[-1][0]}"

    def reaches_back_to(self) -> datetime | None:
        """Return from when on all events have to be there; None: of none that has to."""
        if not self.trimmed:
            return _ALWAYS
        return None if self.first is None else time_of(self.first) + _CLOCKS

    def trim(self) -> None:
        """Take off all entries of that time: every reader is told that it missed something. Raises RedisError."""
        time, number = order(self.last)
        self.client.xtrim(self.key, minid=f"{time}-{number + 1}", approximate=False)


@dataclass(slots=True)
class Found:
    """What database and stream do not know of each other."""

    stream: Stream
    epoch: Epoch
    entries: int = 0
    unreadable: int = 0
    lost: set[UUID] = field(default_factory=set)  # commands with an event, which the database does not know so
    lost_from: datetime | None = None  # when the first of them was processed
    lost_to: datetime | None = None
    held: set[UUID] = field(default_factory=set)  # of them, those that the catalog has no student or course for
    students: set[int] = field(default_factory=set)  # which these need, some of them
    courses: set[int] = field(default_factory=set)
    overlaps: bool = True  # the stream reaches back to what the database knows
    published: list[UUID] = field(default_factory=list)  # batches in the outbox that are on the stream
    untold: list[UUID] = field(default_factory=list)  # commands without an event, the latest first
    ahead: int = 0  # commands with a place in the feed that is yet to come

    def note(self, lost: Lost) -> None:
        """Add what was found on a page."""
        times = [event.time for event in lost.events]
        self.lost.update(event.id for event in lost.events)
        self.lost_from = min(filter(None, (self.lost_from, *times)), default=None)
        self.lost_to = max(filter(None, (self.lost_to, *times)), default=None)
        self.held |= lost.held
        self.students |= set(sorted(lost.students)[:_NAMED])
        self.courses |= set(sorted(lost.courses)[:_NAMED])

    @property
    def is_well(self) -> bool:
        """Whether there is nothing to do."""
        return self.epoch.is_as_noted and not (self.lost or self.published or self.untold or self.ahead)


def look(connection: Connection, client: Redis, key: str, *, most: int, since: datetime | None = None) -> Found:
    """Compare. The transaction is REPEATABLE READ: what it sees is on the stream, or was in the outbox.

    The stream is to have at most `most` events, and those of commands processed before `since` are not missed. Raises
    RedisError.
    """
    reconciling.be_patient(connection)
    committed = Stream.of(client, key).last  # before the snapshot: up to here, it has the command of each event
    owed = reconciling.owed(connection)
    found = Found(Stream.of(client, key), epoch.read(connection), ahead=reconciling.ahead(connection))
    told = _Told()
    _compare(connection, found, told, committed)
    found.published = [batch.batch_id for batch in owed if batch.late and told.has(batch)]
    reach = Stream.of(client, key).reaches_back_to()  # now: entries may have been trimmed off meanwhile
    if reach is not None:
        told.expect(owed)
        latest = reconciling.latest(connection, max(reach, since or reach), most)
        found.untold = [command_id for command_id, outcome in latest if not told.knows(command_id, outcome)]
    return found


def repair(connection: Connection, found: Found, *, anew: bool) -> int:
    """Put both right, as far as the database goes; return how many commands were put back.

    The caller has the lock, commits, and then trims the stream where copies have to begin anew. Raises RedisError.
    """
    if found.ahead:
        reconciling.renumber(connection)
    outbox.settle(connection, found.published)
    back = 0
    for page in found.stream.pages() if found.lost else ():
        events = [entry.event for entry in page if entry.event is not None and entry.event.id in found.lost]
        back += put_back(connection, lost_of(connection, events)) if events else 0
    reconciling.owe(connection, found.untold[::-1])
    epoch.note(connection, begin=bool(found.lost or found.ahead or found.epoch.moved or anew))
    return back


def time_of(entry_id: str) -> datetime:
    """Return when an entry was added, by the clock of Redis."""
    return datetime.fromtimestamp(order(entry_id)[0] / 1000, UTC)


class _Told:
    """The commands of which the stream has an event."""

    def __init__(self) -> None:
        self._final: set[UUID] = set()
        self._waiting: set[UUID] = set()

    def add(self, event: Event) -> None:
        (self._waiting if event.is_waiting else self._final).add(event.id)

    def has(self, batch: Owed) -> bool:
        return self._final.issuperset(batch.command_ids) and self._waiting.issuperset(_waiting_of(batch))

    def expect(self, owed: Iterable[Owed]) -> None:
        """Take what is in the outbox for told: it is going to be."""
        for batch in owed:
            self._final.update(batch.command_ids)
            self._waiting.update(_waiting_of(batch))

    def knows(self, command_id: UUID, outcome: str) -> bool:
        return command_id in self._final or (outcome == "waiting" and command_id in self._waiting)


def _waiting_of(batch: Owed) -> list[UUID]:
    return [Event.model_validate_json(text).id for text in batch.events]


def _compare(connection: Connection, found: Found, told: _Told, committed: str) -> None:
    """Read the stream, and note what of it the database does not know, up to the entry `committed`."""
    forgotten, knows = reconciling.forgotten_before(connection), not found.stream.trimmed
    for page in found.stream.pages():
        found.entries += len(page)
        events: list[Event] = []
        for entry in page:
            found.unreadable += entry.event is None or not is_whole(entry.event)
            if entry.event is not None:
                told.add(entry.event)
                if order(entry.id) <= order(committed):
                    events.append(entry.event)
        lost = lost_of(connection, [event for event in events if event.time >= forgotten])
        if lost.events and not found.lost:
            found.overlaps = knows or lost.events[0] is not events[0]
        knows = knows or len(lost.events) < len(events)
        found.note(lost)
