"""The use case: one batch of messages, one transaction. Knows no Celery."""

from collections.abc import Callable, Collection, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from typing import Final, assert_never
from uuid import UUID

from sqlalchemy import Connection, Engine

from enrollment.errors import DeadLetterCode
from enrollment.fold import STEP, Record, Repeat, Reused, Verdict, fold
from enrollment.ids import uuid7
from enrollment.parsing import Invalid, Request, Unidentified
from models import dead_letters, ledger
from models.db_errors import describe, is_conflict, is_outage, is_too_much
from models.dead_letters import NewDeadLetter
from tasks.messages import Unit

_CONFLICTS: Final = 3  # times a batch is read and decided anew because a concurrent one came first


@dataclass(frozen=True, slots=True)
class Failed:
    """A unit that could not be processed, for a reason that is neither an outage nor its own outcome."""

    reason: str


Result = Verdict | Unidentified | Failed


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


class Arrival:
    """When a batch was first seen, by the clock of the database: what commands without a stamp get for one.

    However many transactions a batch takes, a later one gets later times.
    """

    def __init__(self) -> None:
        self._since = monotonic()
        self._next: datetime | None = None

    def times(self, now: datetime, count: int) -> datetime:
        """Return the first of `count` times, a microsecond apart, that nobody had before; `now` is the clock."""
        if self._next is None:
            self._next = now - timedelta(seconds=monotonic() - self._since)
        first = self._next
        self._next += count * STEP
        return first


def defer(
    units: Sequence[Unit], students: AbstractSet[int], command_ids: AbstractSet[UUID]
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


def apply(
    engine: Engine,
    units: Sequence[Unit],
    arrival: Arrival,
    *,
    wait: bool = True,
    keep_alive: Callable[[], None] = lambda: None,
) -> Iterator[Committed]:
    """Apply `units` in one transaction; where one of them breaks it, in as few as it takes to single that one out.

    The broken one is committed as a dead letter. Without `wait`, units whose students belong to another batch just now
    are left out. `keep_alive` is called after each attempt that failed. Raises what that raises, and what `is_outage`
    tells: then nothing of the transaction under way has happened, and what was yielded before stands. Repeating the
    same units is harmless at any time.
    """
    try:
        yield _apply_reading_again(engine, units, arrival, wait=wait)
    except Exception as error:
        divisible = len(units) > 1 and is_too_much(error)
        if isinstance(error, MemoryError) or (is_outage(error) and not divisible):
            raise
        keep_alive()
        if len(units) == 1:
            yield _commit_dead_letter(engine, units[0], describe(error))
        else:
            half = len(units) // 2
            # With `wait`: what the first half leaves out must not be overtaken by the second.
            yield from apply(engine, units[:half], arrival, keep_alive=keep_alive)
            yield from apply(engine, units[half:], arrival, keep_alive=keep_alive)


def _apply_reading_again(engine: Engine, units: Sequence[Unit], arrival: Arrival, *, wait: bool) -> Committed:
    for _ in range(_CONFLICTS):
        try:
            return _apply(engine, units, arrival, wait=wait)
        except Exception as error:
            if not is_conflict(error):
                raise
    return _apply(engine, units, arrival, wait=wait)


def _apply(engine: Engine, units: Sequence[Unit], arrival: Arrival, *, wait: bool) -> Committed:
    students = {unit.request.student_id for unit in units if not isinstance(unit.request, Invalid | Unidentified)}
    with engine.begin() as connection:
        locked, busy = ledger.lock_students(connection, students, wait=wait)
        selected, deferred = defer(units, busy, set()) if busy else (units, ())
        requests = [unit.request for unit in selected if not isinstance(unit.request, Unidentified)]
        verdicts = iter(_decide(connection, locked, requests, arrival) if requests else ())
        decided = [(u, u.request if isinstance(u.request, Unidentified) else next(verdicts)) for u in selected]
        committed = Committed(uuid7(), tuple(decided), tuple(deferred))
        records = committed.records
        if records:
            ledger.write_commands(connection, records, committed.batch_id)
        dead_letters.put(connection, list(_dead_letters(decided)))
    return committed


def _decide(
    connection: Connection, students: Collection[int], requests: Sequence[Request], arrival: Arrival
) -> list[Verdict]:
    """Read, fold, and write the rows. The students are locked."""
    state, now = ledger.read_state(connection, students, requests)
    folded = fold(state, requests, now, first_seen=arrival.times(now, len(requests)))
    ledger.write_changes(connection, folded.changes)
    return folded.verdicts


def _dead_letters(decided: Sequence[tuple[Unit, Result]]) -> Iterator[NewDeadLetter]:
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
            case Record() | Repeat() | Failed():
                pass
            case _:
                assert_never(result)


def _commit_dead_letter(engine: Engine, unit: Unit, reason: str) -> Committed:
    with engine.begin() as connection:
        letter = unit.dead_letter(DeadLetterCode.PROCESSING_FAILED, f"The command could not be processed: {reason}")
        dead_letters.put(connection, [letter])
    return Committed(uuid7(), ((unit, Failed(reason)),))
