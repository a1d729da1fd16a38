"""One transaction: lock and read, fold, write and commit. What others have locked stays out of it."""

from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic
from typing import assert_never
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from enrollment.commands import Withdraw
from enrollment.errors import DeadLetterCode
from enrollment.fold import Changes, Record, Repeat, Reused, Verdict, fold
from enrollment.ids import uuid7
from enrollment.parsing import Invalid, Unidentified, content_hash
from enrollment.state import State
from enrollment.waiting import Policy
from models import dead_letters, deferred, ledger, locks, replication, student_locks
from models.db_errors import is_locked
from models.dead_letters import NewDeadLetter
from models.deferred import Deferred, Reason, Wait
from models.locks import Busy
from tasks.arrival import Arrival, Seen, defer
from tasks.caution import Blocked, How
from tasks.deferring import PutOff, is_told, to_be_kept, wait_of
from tasks.messages import Unit, student_of, traced


@dataclass(frozen=True, slots=True)
class Failed:
    """A unit that could not be processed, for a reason that is neither an outage nor its own outcome."""

    reason: str


Result = Verdict | Unidentified | Failed | PutOff
Held = tuple[Unit, datetime, Wait]  # and what it waits for


@dataclass(frozen=True, slots=True)
class Committed:
    """One committed transaction: what came of its units, in order, and the units that are yet to be applied."""

    batch_id: UUID
    decided: tuple[tuple[Unit, Result], ...]
    deferred: tuple[Unit, ...] = ()  # their students belonged to another batch at the time
    more: tuple[Record, ...] = ()  # what came of commands that waited, and were withdrawn
    begun: float = 0.0  # by the monotonic clock, as is the next
    decided_at: float = field(default_factory=monotonic)  # what follows is to write and to commit

    @property
    def records(self) -> tuple[Record, ...]:
        """The commands that were decided in this transaction, or wait from now on: one event is owed for each."""
        return tuple(result for _, result in self.decided if isinstance(result, Record)) + self.more

    @property
    def waits(self) -> list[Wait]:
        """What those wait for that were put off."""
        return [result.wait for _, result in self.decided if isinstance(result, PutOff)]


def run(connection: Connection, units: Sequence[Unit], arrival: Arrival, how: How) -> Committed:
    """Apply units in one transaction. Raises what the database raises, and Blocked."""
    students = {
        unit.request.student_id for unit in units if not isinstance(unit.request, Invalid | Unidentified | Withdraw)
    }
    with connection.begin():
        ledger.use_plans(connection, len(units))
        locked, busy, reading = _lock(connection, students, units, how)
        avoided = students & how.avoided
        selected, deferred, off = _sort(units, busy, avoided, how)
        selected = taken(connection, selected)
        decided: list[tuple[Unit, Result]] = []
        if selected:
            state, now = _state(reading or _read(connection, locked, selected), locked, how)
            decided, held = _decide(connection, state, now, arrival.of(selected, lambda: now), how)
            decided += _keep(connection, held)
        if off:
            decided += _put_off(connection, off, arrival, avoided)
        committed = Committed(uuid7(), tuple(decided), tuple(deferred))
        records = committed.records
        if how.releasing:
            _end_waits(connection, committed.decided)
        if records:
            ledger.write_commands(connection, records, committed.batch_id)
        else:  # repeats are acknowledged because of what was read
            replication.confirm(connection)
        dead_letters.put(connection, list(letters(decided)))
    return committed


def put_off(connection: Connection, units: Sequence[Unit], arrival: Arrival) -> Committed:
    """Put units off that need a lock which nothing can name. Raises Blocked where not even that is possible."""
    with _blocked(), connection.begin():
        replication.confirm(connection)
        return Committed(uuid7(), tuple(_put_off(connection, units, arrival, set(map(student_of, units)))))


def dead_letter(connection: Connection, unit: Unit, reason: str) -> Committed:
    """Keep a unit as a dead letter that could not be processed. Raises what the database raises, and Blocked."""
    with _blocked(), connection.begin():
        if taken(connection, [unit]):
            if is_told(unit) and unit.kept is not None and unit.kept.command_id is not None:
                ledger.take_waiting(connection, [unit.kept.command_id])
            letter = unit.dead_letter(DeadLetterCode.PROCESSING_FAILED, f"The command could not be processed: {reason}")
            dead_letters.put(connection, [letter])
        replication.confirm(connection)
        return Committed(uuid7(), ((unit, Failed(reason)),))


@contextmanager
def _blocked() -> Iterator[None]:
    """Here, a lock of others is on a whole table."""
    try:
        yield
    except DBAPIError as error:
        if is_locked(error):
            raise Blocked from error
        raise


def _lock(
    connection: Connection, students: AbstractSet[int], units: Sequence[Unit], how: How
) -> tuple[set[int], set[int], ledger.Reading | None]:
    """Lock the students, and read what decides the units in the same round trip, unless they waited: that is later."""
    selected = student_locks.wait_for_students(connection, how.wait_for & students)
    with _blocked() if how.careful else nullcontext():
        if how.careful:
            locks.reserve(connection)
        lock = student_locks.lock_students(connection, students - how.wait_for)
        reading = None if how.releasing else _read(connection, students, units)
        locked, busy = lock()
    return locked | selected, busy, reading


def _read(connection: Connection, students: AbstractSet[int], units: Sequence[Unit]) -> ledger.Reading:
    requests = [unit.request for unit in units if not isinstance(unit.request, Unidentified | Withdraw)]
    told = {it.command_id for unit in units if (it := unit.kept) and it.told and it.command_id is not None}
    return ledger.read_state(connection, students, requests, told)


def _sort(
    units: Sequence[Unit], busy: AbstractSet[int], avoided: AbstractSet[int], how: How
) -> tuple[Sequence[Unit], Sequence[Unit], Sequence[Unit]]:
    """Return what is applied now, what is left for another transaction, and what is put off."""
    if not busy and not avoided:
        return units, (), ()
    selected, rest = defer(units, busy | avoided)
    if how.put_off:
        return selected, (), rest
    deferred, off = defer(rest, (busy & how.stuck) | avoided)
    return selected, deferred, off


def taken(connection: Connection, units: Sequence[Unit]) -> Sequence[Unit]:
    """Take units out of where they waited; those that another worker is about to apply are its own."""
    ids = {unit.kept.id for unit in units if unit.kept is not None}
    if not ids:
        return units
    taken = deferred.take(connection, ids)
    kept = [(unit, unit.kept) for unit in units if unit.kept is None or unit.kept.id in taken]
    return [unit if it is None else replace(unit, kept=replace(it, until=taken[it.id])) for unit, it in kept]


def _state(reading: ledger.Reading, students: AbstractSet[int], how: How) -> tuple[State, datetime]:
    with _blocked() if how.careful else nullcontext():
        return reading(students)


def _decide(
    connection: Connection, state: State, now: datetime, seen: Sequence[Seen], how: How
) -> tuple[list[tuple[Unit, Result]], list[Held]]:
    """Fold, and write the rows; return what was decided, and what is held up. The students are locked."""
    kept = [unit.kept for unit, _ in seen if unit.kept is not None]
    state.promised = {it.command_id: it.promised for it in kept if it.command_id is not None and it.promised}
    decided, changes = _folded(state, seen, now, how.policy)
    held: list[Held] = []
    while how.careful and (busy := locks.busy(connection, changes, dead_letters=any(letters(decided)))):
        free, more = _held_up(decided, seen, busy)
        for unit, _, _ in more:  # of what is under one id the first stands
            if not isinstance(unit.request, Unidentified):
                state.processed.setdefault(unit.request.command_id, content_hash(unit.request))
        held, seen = held + more, free
        decided, changes = _folded(state, seen, now, how.policy)
    ledger.write_changes(connection, changes)
    return _waiting_kept(connection, decided, seen), held


def _folded(
    state: State, seen: Sequence[Seen], now: datetime, policy: Policy
) -> tuple[list[tuple[Unit, Result]], Changes]:
    known = [(unit.request, time) for unit, time in seen if not isinstance(unit.request, Unidentified | Withdraw)]
    times = [time for _, time in known]
    folded = fold(state, [request for request, _ in known], now, first_seen=times, policy=policy)
    verdicts = iter(folded.verdicts)
    decided: list[tuple[Unit, Result]] = [
        (unit, unit.request if isinstance(unit.request, Unidentified) else traced(unit, next(verdicts)))
        for unit, _ in seen
    ]
    return decided, folded.changes


def _waiting_kept(
    connection: Connection, decided: list[tuple[Unit, Result]], seen: Sequence[Seen]
) -> list[tuple[Unit, Result]]:
    """Keep what has to wait; of what waited before, there is nothing new to be told."""
    kept: list[Deferred] = []
    for place, (unit, result) in enumerate(decided):
        if type(result) is Record and result.waiting is not None:
            wait = wait_of(result.waiting)
            kept.append(to_be_kept(unit, wait, seen[place][1], result.waiting))
            if is_told(unit):
                decided[place] = (unit, PutOff(wait))
    deferred.put_anew(connection, kept)
    return decided


def _end_waits(connection: Connection, decided: Iterable[tuple[Unit, Result]]) -> None:
    """Make room for what came of commands that stand there as waiting."""
    over = [result.command_id for unit, result in decided if isinstance(result, Record) and is_told(unit)]
    if over:
        ledger.take_waiting(connection, over)


def _held_up(decided: Sequence[tuple[Unit, Result]], seen: Sequence[Seen], busy: Busy) -> tuple[list[Seen], list[Held]]:
    """Return what goes on, and what does not: that which writes what is busy."""
    free: list[Seen] = []
    held: list[Held] = []
    for (unit, result), (_, time) in zip(decided, seen, strict=True):
        wait = _wait(unit, result, busy)
        if wait is None:
            free.append((unit, time))
        else:
            held.append((unit, time, wait))
    return free, held


def _wait(unit: Unit, result: Result, busy: Busy) -> Wait | None:
    if busy.dead_letters and any(letters([(unit, result)])):
        return Wait(Reason.DEAD_LETTERS, 0)
    if not isinstance(result, Record) or result.errors or result.waiting:
        return None
    if student_of(unit) in busy.students:
        return Wait(Reason.ENROLLMENTS, student_of(unit))
    courses = busy.courses.intersection(result.course_ids or ())
    return Wait(Reason.COURSE, min(courses)) if courses else None


def _put_off(
    connection: Connection, units: Sequence[Unit], arrival: Arrival, avoided: AbstractSet[int]
) -> list[tuple[Unit, Result]]:
    """Put off what was not even tried; what waits for the same already stays where it is."""

    def wait(unit: Unit) -> Wait:
        return Wait(Reason.OTHER if student_of(unit) in avoided else Reason.STUDENT, student_of(unit))

    still = [unit for unit in units if unit.kept is not None and unit.kept.wait == wait(unit)]
    moved = taken(connection, [unit for unit in units if unit.kept is None or unit.kept.wait != wait(unit)])
    kept = [(unit, time, wait(unit)) for unit, time in arrival.of(moved, lambda: deferred.clock(connection))]
    return [*((unit, PutOff(wait(unit))) for unit in still), *_keep(connection, kept)]


def _keep(connection: Connection, held: Sequence[Held]) -> list[tuple[Unit, Result]]:
    """Keep what is held up. A command that waits already is a repeat."""
    again = deferred.put(connection, [to_be_kept(unit, wait, time) for unit, time, wait in held]) if held else set()
    decided: list[tuple[Unit, Result]] = []
    for place, (unit, _, wait) in enumerate(held):
        if place in again and not isinstance(unit.request, Unidentified):
            decided.append((unit, Repeat(unit.request.command_id)))
        else:
            decided.append((unit, PutOff(wait)))
    return decided


def letters(decided: Sequence[tuple[Unit, Result]]) -> Iterator[NewDeadLetter]:
    """Return what becomes dead letters of this."""
    for unit, result in decided:
        match result:
            case Unidentified():
                yield unit.dead_letter(result.code, result.message)
            case Reused():
                yield unit.dead_letter(
                    DeadLetterCode.COMMAND_ID_REUSED,
                    "Another command was processed under this id and stands. Send this one again with a new id.",
                )
            case Record() if isinstance(unit.request, Invalid):
                yield unit.dead_letter(DeadLetterCode.INVALID_COMMAND, unit.request.rejection.message)
            case Record() | Repeat() | Failed() | PutOff():
                pass
            case _:
                assert_never(result)
