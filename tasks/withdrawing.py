"""One transaction of withdraws: lock what waits, decide, write."""

from collections.abc import Sequence

from sqlalchemy import Connection

from enrollment.commands import Withdraw
from enrollment.fold import Effects, Record
from enrollment.ids import uuid7
from enrollment.parsing import Invalid, Unidentified
from enrollment.traces import trace_of
from enrollment.withdrawing import withdraw
from models import awaited, dead_letters, deferred, ledger, replication
from models.db_errors import Overtaken
from models.deferred import Deferred
from tasks.arrival import Arrival
from tasks.caution import How
from tasks.deferring import units_from
from tasks.messages import Unit, traced
from tasks.transaction import Committed, letters, taken


def run(connection: Connection, units: Sequence[Unit], _arrival: Arrival, _how: How) -> Committed:
    """Withdraw in one transaction. Raises what the database raises, and Overtaken: what waits is being decided."""
    with connection.begin():
        units = taken(connection, units)
        requests = [unit.request for unit in units if isinstance(unit.request, Withdraw)]
        ids = {request.command_id for request in requests}
        targets = {request.target for request in requests}
        now = deferred.clock(connection)
        waiting = awaited.lock(connection, ids | targets)
        known = {record.command_id: record for record in awaited.records(connection, ids | targets)}
        kept = {it.command_id: it for it in waiting if it.command_id is not None}
        if any(record.outcome == "waiting" and id_ not in kept for id_, record in known.items()):
            raise Overtaken  # it is being decided
        known |= {id_: _untold(it) for id_, it in kept.items() if id_ not in known}
        known = {it.command_id: it for it in awaited.forgotten(connection, ids | targets)} | known
        verdicts, withdrawn = withdraw(known, requests, now)
        deferred.take(connection, {kept[record.command_id].id for record in withdrawn if record.command_id in kept})
        if withdrawn:
            ledger.take_waiting(connection, [record.command_id for record in withdrawn])
        decided = tuple((unit, traced(unit, verdict)) for unit, verdict in zip(units, verdicts, strict=True))
        committed = Committed(uuid7(), decided, more=tuple(withdrawn))
        if committed.records:
            ledger.write_commands(connection, committed.records, committed.batch_id)
        else:
            replication.confirm(connection)
        dead_letters.put(connection, list(letters(committed.decided)))
    return committed


def _untold(kept: Deferred) -> Record:
    """Return a command that waits for a lock, of which nothing was told, as if it had been; what is none cannot be."""
    [unit] = units_from([kept])
    request, command_id = unit.request, kept.command_id
    assert command_id is not None  # noqa: S101 (it was found by its id)
    valid = not isinstance(request, Invalid | Unidentified | Withdraw)
    return Record(
        command_id=command_id,
        command=request.kind if not isinstance(request, Invalid | Unidentified) else None,
        student_id=kept.student_id,
        course_ids=None if isinstance(request, Unidentified) else request.course_ids,
        issued_at=request.effective_at or request.issued_at or kept.first_seen
        if not isinstance(request, Unidentified | Withdraw)
        else None,
        source=None if isinstance(request, Unidentified) else request.source,
        outcome="waiting" if valid else "rejected",
        effects=Effects(),
        errors=(),
        processed_at=kept.first_seen,
        content_hash=kept.content_hash or b"",
        trace=trace_of(unit.message.headers),
    )
