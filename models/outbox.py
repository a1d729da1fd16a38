"""The outbox: which batches are committed and not yet known to be published. One row per batch; ids mostly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from sqlalchemy import Connection, text

from enrollment.fold import Record
from models.arrays import plain, uuids
from models.direct import ask, execute_at_once
from models.records import RECORD_COLUMNS, record_of

# Forgetting a settlement is harmless (the batch is published again and the check in Redis drops it), so it need not
# wait for the disk; nor for a row that somebody else holds. By place, as by key PostgreSQL would read all of the table.
_TAKE: Final = text("""
    DELETE FROM outbox WHERE ctid = ANY(ARRAY(
           SELECT ctid FROM outbox WHERE batch_id = ANY(CAST(:batches AS uuid[])) FOR UPDATE SKIP LOCKED))
       AND set_config('synchronous_commit', 'off', true) = 'off'
""")
# A row belongs to one relay, until the end of the transaction.
_PENDING: Final = text("""
    SELECT batch_id, command_ids, events FROM outbox
     WHERE committed_at <= clock_timestamp() - make_interval(secs => :older_than)
     ORDER BY id LIMIT :batches FOR UPDATE SKIP LOCKED
""")
_RECORDS: Final = text(f"""
    SELECT {RECORD_COLUMNS} FROM commands WHERE command_id = ANY(CAST(:commands AS uuid[]))
""")
_BACKLOG: Final = text("""
    SELECT count(*), COALESCE(extract(epoch FROM clock_timestamp() - min(committed_at)), 0)::float FROM outbox
""")


@dataclass(frozen=True, slots=True)
class Pending:
    """A committed batch whose events may not be on the stream yet."""

    batch_id: UUID
    records: tuple[Record, ...]
    events: tuple[str, ...] = ()  # as they are to stand on the stream: that commands wait, which may be decided by now


def settle(connection: Connection, batch_ids: Sequence[UUID]) -> None:
    """Strike off batches whose events are on the stream."""
    ask(connection, _TAKE, {"batches": uuids(batch_ids)})


def settle_at_once(connection: Connection, batch_id: UUID) -> None:
    """Strike off a batch whose events are on the stream, in one round trip; `connection` is in no transaction."""
    execute_at_once(connection, _TAKE, {"batches": uuids([batch_id])})


def pending(connection: Connection, *, older_than: float, batches: int) -> list[Pending]:
    """Return the oldest unsettled batches committed at least `older_than` seconds ago, in order of commit.

    They are this transaction's until it ends; what another relay has at hand is passed over. A command whose row
    another hand took away is left out: there is nothing to be told of it any more.
    """
    rows = connection.execute(_PENDING, {"older_than": older_than, "batches": batches}).all()
    ids = [command_id for row in rows for command_id in row.command_ids]
    records = {r.command_id: r for r in map(record_of, connection.execute(_RECORDS, {"commands": plain(ids)}))}
    return [
        Pending(row.batch_id, tuple(records[id_] for id_ in row.command_ids if id_ in records), tuple(row.events or ()))
        for row in rows
    ]


def backlog(connection: Connection) -> tuple[int, float]:
    """Return the number of unsettled batches and the age of the oldest, in seconds."""
    count, age = connection.execute(_BACKLOG).one()
    return count, age
