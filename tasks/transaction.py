"""One transaction: lock, read, fold, write. What others have locked stays out of it."""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import assert_never
from uuid import UUID

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError

from enrollment.errors import DeadLetterCode
from enrollment.fold import STEP, Changes, Record, Repeat, Reused, State, Verdict, fold, times_from
from enrollment.ids import uuid7
from enrollment.parsing import Invalid, Unidentified, content_hash
from models import dead_letters, deferred, ledger, locks
from models.db_errors import is_locked
from models.dead_letters import NewDeadLetter
from models.deferred import Reason, Wait
from models.locks import Busy
from tasks.caution import Blocked, How
from tasks.deferring import PutOff, to_be_kept
from tasks.messages import Unit


@dataclass(frozen=True, slots=True)
class Failed:
    """A unit that could not be processed, for a reason that is neither an outage nor its own outcome."""

    reason: str


Result = Verdict | Unidentified | Failed | PutOff
Seen = tuple[Unit, datetime]  # a unit, and when it was first seen
Held = tuple[Unit, datetime, Wait]  # and what it waits for


@dataclass(frozen=True, slots=True)
class Committed:
    """One committed transaction: what came of its units, in order, and the units that are yet to be applied."""

    batch_id: UUID
    decided: tuple[tuple[Unit, Result], ...]
    deferred: tuple[Unit, ...] = ()  # their students belonged to another batch at the time

    @property
    def records(self) -> tuple[Record, ...]:
        """The commands that were decided in this transaction: one event is owed for each."""
        return tuple(result for _, result in self.decided if isinstance(result, Record))

    @property
    def waits(self) -> list[Wait]:
        """What those wait for that were put off."""
        return [result.wait for _, result in self.decided if isinstance(result, PutOff)]


class Arrival:
    """When a batch was first seen, by the clock of the database: what commands without a stamp get for one.

    However many transactions a batch takes, a later one gets later times.
    """

    def __init__(self) -> None:
        self._since = monotonic()
        self._next: datetime | None = None

    def times(self, now: datetime, count: int) -> list[datetime]:
        """Return `count` rising times that nobody had before; `now` is the clock."""
        if self._next is None:
            self._next = now - timedelta(seconds=monotonic() - self._since)
        first = self._next
        self._next += count * STEP
        return times_from(first, count)

    def of(self, units: Sequence[Unit], clock: Callable[[], datetime]) -> list[Seen]:
        """Return units with the time at which each was first seen."""
        times = self.times(clock(), len(units))
        return [(u, t if u.kept is None else u.kept.first_seen) for u, t in zip(units, times, strict=True)]


def defer(
    units: Sequence[Unit], students: AbstractSet[int], command_ids: AbstractSet[UUID] = frozenset()
) -> tuple[Sequence[Unit], Sequence[Unit]]:
    """Return the units that may be applied now, and those of these students or under these ids, which may not yet.

    Of what is under one id the first stands, so what comes under an id that is deferred is deferred, too, and with it
    what its student is told later: without a stamp, the order of arrival is what counts.
    """
    selected: list[Unit] = []
    deferred: list[Unit] = []
    held, ids = set(students), set(command_ids)
    for unit in units:
        request = unit.request
        if not isinstance(request, Unidentified) and (request.student_id in held or request.command_id in ids):
            deferred.append(unit)
            ids.add(request.command_id)
            if request.student_id is not None:
                held.add(request.student_id)
        else:
            selected.append(unit)
    return selected, deferred


def run(engine: Engine, units: Sequence[Unit], arrival: Arrival, how: How) -> Committed:
    """Apply units in one transaction. Raises what the database raises, and Blocked."""
    students = {unit.request.student_id for unit in units if not isinstance(unit.request, Invalid | Unidentified)}
    with engine.begin() as connection:
        locked, busy = _lock(connection, students, how)
        avoided = students & how.avoided
        selected, deferred, off = _sort(units, busy, avoided, how)
        selected = _taken(connection, selected)
        decided, held = _decide(connection, locked, selected, arrival, how) if selected else ([], [])
        decided += _keep(connection, held)
        if off:
            decided += _put_off(connection, off, arrival, avoided)
        committed = Committed(uuid7(), tuple(decided), tuple(deferred))
        records = committed.records
        if records:
            ledger.write_commands(connection, records, committed.batch_id)
        dead_letters.put(connection, list(_letters(decided)))
    return committed


def put_off(engine: Engine, units: Sequence[Unit], arrival: Arrival) -> Committed:
    """Put units off that need a lock which nothing can name. Raises Blocked where not even that is possible."""
    with _blocked(), engine.begin() as connection:
        return Committed(uuid7(), tuple(_put_off(connection, units, arrival, set(map(student_of, units)))))


def dead_letter(engine: Engine, unit: Unit, reason: str) -> Committed:
    """Keep a unit as a dead letter that could not be processed. Raises what the database raises, and Blocked."""
    with _blocked(), engine.begin() as connection:
        if _taken(connection, [unit]):
            letter = unit.dead_letter(DeadLetterCode.PROCESSING_FAILED, f"The command could not be processed: {reason}")
            dead_letters.put(connection, [letter])
    return Committed(uuid7(), ((unit, Failed(reason)),))


def student_of(unit: Unit) -> int:
    """Return the student that a unit is about, 0 where it does not say."""
    return 0 if isinstance(unit.request, Unidentified) else unit.request.student_id or 0


@contextmanager
def _blocked() -> Iterator[None]:
    """Here, a lock of others is on a whole table."""
    try:
        yield
    except DBAPIError as error:
        if is_locked(error):
            raise Blocked from error
        raise


def _lock(connection: Connection, students: AbstractSet[int], how: How) -> tuple[set[int], set[int]]:
    selected = ledger.wait_for_students(connection, how.wait_for & students)
    if not how.careful:
        locked, busy = ledger.lock_students(connection, students - how.wait_for)
    else:
        with _blocked():
            locks.reserve(connection)
            locked, busy = ledger.lock_students(connection, students - how.wait_for)
    return locked | selected, busy


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


def _taken(connection: Connection, units: Sequence[Unit]) -> Sequence[Unit]:
    """Take units out of where they waited; those that another worker is about to apply are its own."""
    ids = {unit.kept.id for unit in units if unit.kept is not None}
    if not ids:
        return units
    taken = deferred.take(connection, ids)
    return [unit for unit in units if unit.kept is None or unit.kept.id in taken]


def _decide(
    connection: Connection, students: AbstractSet[int], units: Sequence[Unit], arrival: Arrival, how: How
) -> tuple[list[tuple[Unit, Result]], list[Held]]:
    """Read, fold, and write the rows; return what was decided, and what is held up. The students are locked."""
    requests = [unit.request for unit in units if not isinstance(unit.request, Unidentified)]
    with _blocked() if how.careful else nullcontext():
        state, now = ledger.read_state(connection, students, requests)
    seen = arrival.of(units, lambda: now)
    decided, changes = _folded(state, seen, now)
    held: list[Held] = []
    while how.careful and (busy := locks.busy(connection, changes, dead_letters=any(_letters(decided)))):
        kept, more = _held_up(decided, seen, busy)
        for unit, _, _ in more:  # of what is under one id the first stands
            if not isinstance(unit.request, Unidentified):
                state.processed.setdefault(unit.request.command_id, content_hash(unit.request))
        held, seen = held + more, kept
        decided, changes = _folded(state, seen, now)
    ledger.write_changes(connection, changes)
    return decided, held


def _folded(state: State, seen: Sequence[Seen], now: datetime) -> tuple[list[tuple[Unit, Result]], Changes]:
    known = [(unit.request, time) for unit, time in seen if not isinstance(unit.request, Unidentified)]
    folded = fold(state, [request for request, _ in known], now, first_seen=[time for _, time in known])
    verdicts = iter(folded.verdicts)
    decided: list[tuple[Unit, Result]] = [
        (unit, unit.request if isinstance(unit.request, Unidentified) else next(verdicts)) for unit, _ in seen
    ]
    return decided, folded.changes


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
    if busy.dead_letters and any(_letters([(unit, result)])):
        return Wait(Reason.DEAD_LETTERS, 0)
    if not isinstance(result, Record) or result.errors:
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
    moved = _taken(connection, [unit for unit in units if unit.kept is None or unit.kept.wait != wait(unit)])
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


def _letters(decided: Sequence[tuple[Unit, Result]]) -> Iterator[NewDeadLetter]:
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
