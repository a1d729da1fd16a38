"""What `enrollment reconcile` asks of the database, and changes there, in one transaction."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from enrollment.events import event_json
from enrollment.fold import Record
from enrollment.ids import uuid7
from models.arrays import plain, quoted
from models.direct import ask
from models.records import PUT_RARE_RECORDS, RECORD_COLUMNS, parameters_of, record_of
from models.retention import MARGIN

# In the order in which a batch writes them, after what a step of retention locks first. Readers go on; workers wait as
# for any locked table.
_LOCK: Final = text("""
    LOCK TABLE retention, student_courses, tombstones, replace_marks, commands, outbox, deferred_commands
      IN EXCLUSIVE MODE
""")
_NO_HURRY: Final = ("SET LOCAL statement_timeout = 0", "SET LOCAL idle_in_transaction_session_timeout = '5min'")
_OUTCOMES: Final = text("SELECT command_id, outcome FROM commands WHERE command_id = ANY(CAST(:ids AS uuid[]))")
_EXISTING: Final = {
    table: text(f"SELECT id FROM {table} WHERE id = ANY(CAST(:ids AS bigint[]))") for table in ("students", "courses")
}
_OWED: Final = text("""
    SELECT batch_id, command_ids, coalesce(events, '{}'), committed_at < clock_timestamp() - interval '1 minute'
      FROM outbox
""")
_LATEST: Final = text("""
    SELECT command_id, outcome FROM commands WHERE processed_at > :since ORDER BY processed_at DESC LIMIT :most
""")
_NEWEST: Final = text("SELECT max(processed_at) FROM commands")
# The first condition is one step in an index; as a rule it is false.
_MORE: Final = text("""
    SELECT EXISTS (SELECT FROM commands WHERE processed_at < :first) AND :entries <
           (SELECT count(*) FROM (SELECT FROM commands WHERE processed_at < :until LIMIT :entries + 1) AS found)
""")
_OWE: Final = text("""
    INSERT INTO outbox (batch_id, command_ids, events)
    VALUES (:batch_id, CAST(:command_ids AS uuid[]), CAST(:events AS text[]))
""")
_RECORDS: Final = text(f"SELECT {RECORD_COLUMNS} FROM commands WHERE command_id = ANY(CAST(:ids AS uuid[]))")
_PUT: Final = text(PUT_RARE_RECORDS)
_FORGOTTEN: Final = text("SELECT forgotten_before FROM retention")
# Numbers of transactions that this database has yet to begin.
_NEXT: Final = "CAST(CAST(pg_snapshot_xmax(pg_current_snapshot()) AS text) AS bigint)"
_AHEAD: Final = text(f"SELECT count(*) FROM commands WHERE position >= {_NEXT}")
_RENUMBER: Final = text(f"UPDATE commands SET position = 0 WHERE position >= {_NEXT}")
_BEGIN_ANEW: Final = text("UPDATE retention SET gone_to = least(gone_to, 1), part = 0, after_a = -1, after_b = ''")
_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_IN_A_BATCH: Final = 500  # commands in one row of the outbox


class Owed(NamedTuple):
    """A row of the outbox: events of these commands, and events as they are, are not known to be published.

    `late`: it has stood there for so long that nobody is about to settle it.
    """

    batch_id: UUID
    command_ids: Sequence[UUID]
    events: Sequence[str]
    late: bool


def lock(connection: Connection) -> None:
    """Keep everybody from deciding and settling until the end of the transaction; has to come first in it."""
    connection.execute(_LOCK)


def be_patient(connection: Connection) -> None:
    """Let statements of this transaction take as long as they take; what is read in between is read from Redis."""
    for statement in _NO_HURRY:  # neither takes the snapshot
        connection.execute(text(statement))


def outcomes(connection: Connection, command_ids: Collection[UUID]) -> dict[UUID, str]:
    """Return the outcomes of those of these commands that are in the database."""
    return {row[0]: row[1] for row in connection.execute(_OUTCOMES, {"ids": plain(command_ids)})}


def missing(connection: Connection, student_ids: set[int], course_ids: set[int]) -> tuple[set[int], set[int]]:
    """Return those of these students and courses that do not exist."""
    wanted = {"students": student_ids, "courses": course_ids}
    there = {
        table: set(connection.execute(_EXISTING[table], {"ids": plain(ids)}).scalars()) for table, ids in wanted.items()
    }
    return student_ids - there["students"], course_ids - there["courses"]


def owed(connection: Connection) -> list[Owed]:
    """Return the outbox."""
    return list(map(Owed._make, connection.execute(_OWED)))


def latest(connection: Connection, since: datetime, most: int) -> Iterator[tuple[UUID, str]]:
    """Yield id and outcome of the commands processed since, the latest first, at most so many."""
    rows = connection.execute(_LATEST, {"since": since, "most": most}, execution_options={"yield_per": 5000})
    yield from ((row[0], row[1]) for row in rows)


def newest(connection: Connection) -> datetime | None:
    """Return when a command was processed last."""
    at: datetime | None = connection.execute(_NEWEST).scalar_one()
    return at


def more(connection: Connection, *, entries: int, first: datetime, until: datetime) -> bool:
    """Tell whether one command was processed before `first`, and more than `entries` were before `until`."""
    found: bool = connection.execute(_MORE, {"entries": entries, "first": first, "until": until}).scalar_one()
    return found


def owe(connection: Connection, command_ids: Sequence[UUID]) -> None:
    """Put commands into the outbox, in this order: workers publish their events."""
    for start in range(0, len(command_ids), _IN_A_BATCH):
        ids = plain(command_ids[start : start + _IN_A_BATCH])
        found = list(map(record_of, connection.execute(_RECORDS, {"ids": ids})))
        waiting = [event_json(record) for record in found if record.waiting is not None]
        decided = plain([record.command_id for record in found if record.waiting is None])
        events = quoted(waiting) if waiting else None
        connection.execute(_OWE, {"batch_id": uuid7(), "command_ids": decided, "events": events})


def put_records(connection: Connection, records: Iterable[Record]) -> None:
    """Write records of which nothing is to be told."""
    for _, batch in groupby(records, key=lambda record: record.processed_at):
        ask(connection, _PUT, parameters_of(list(batch), rare=True))


def forgotten_before(connection: Connection) -> datetime:
    """Return before which time retention may have removed commands."""
    before: datetime = connection.execute(_FORGOTTEN).scalar_one()
    return max(before, _NEVER + MARGIN) - MARGIN


def ahead(connection: Connection) -> int:
    """Return how many commands have a place in the feed that is yet to come: they are of another cluster."""
    return int(connection.execute(_AHEAD).scalar_one())


def renumber(connection: Connection) -> None:
    """Move these to the beginning of the feed; retention walks from there again. Before anything else is written."""
    connection.execute(_RENUMBER)
    connection.execute(_BEGIN_ANEW)
