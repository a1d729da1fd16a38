"""The use case: one batch of messages, one transaction. Knows no Celery."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import Final, assert_never
from uuid import UUID

from sqlalchemy import Connection, Engine
from uuid_utils.compat import uuid7

from enrollment.errors import DeadLetterCode
from enrollment.fold import Record, Repeat, Reused, Verdict, fold
from enrollment.parsing import Invalid, Request, Unidentified
from models import dead_letters, ledger, outbox
from models.dead_letters import NewDeadLetter
from models.faults import describe, is_conflict, is_outage, is_too_much
from tasks.messages import Unit

MAX_PAIRS: Final = 20_000  # pairs (student, course) and commands in one transaction; some half a second
_CONFLICTS: Final = 3  # times a batch is read and decided anew because a concurrent one came first


@dataclass(frozen=True, slots=True)
class Failed:
    """A unit that could not be processed, for a reason that is neither an outage nor its own outcome."""

    reason: str


Result = Verdict | Unidentified | Failed


@dataclass(frozen=True, slots=True)
class Committed:
    """One committed transaction: what came of each of its units, in order, and the events to publish."""

    batch_id: UUID
    results: tuple[Result, ...]

    @property
    def records(self) -> tuple[Record, ...]:
        """The commands that were decided in this transaction: one event is owed for each."""
        return tuple(result for result in self.results if isinstance(result, Record))


def portions(units: Sequence[Unit]) -> Iterator[Sequence[Unit]]:
    """Cut a batch where one transaction would become too long: it holds locks, and the worker is deaf meanwhile."""
    start, pairs = 0, 0
    for end, unit in enumerate(units):
        course_ids = () if isinstance(unit.request, Unidentified) else unit.request.course_ids or ()
        pairs += 1 + len(course_ids)
        if pairs > MAX_PAIRS and end > start:
            yield units[start:end]
            start, pairs = end, 1 + len(course_ids)
    if start < len(units):
        yield units[start:]


def apply(engine: Engine, units: Sequence[Unit], first_seen: float | None = None) -> Iterator[Committed]:
    """Apply `units` in one transaction; where one of them breaks it, in as few as it takes to single that one out.

    The broken one is committed as a dead letter. `first_seen` is when the worker first saw the units, by
    `time.monotonic`. Raises what `is_outage` tells: then nothing of the transaction under way has happened, and what
    was yielded before stands. Repeating the same units is harmless at any time.
    """
    try:
        yield _apply_reading_again(engine, units, first_seen)
    except Exception as error:
        divisible = len(units) > 1 and is_too_much(error)
        if isinstance(error, MemoryError) or (is_outage(error) and not divisible):
            raise
        if len(units) == 1:
            yield _bury(engine, units[0], describe(error))
        else:
            half = len(units) // 2
            yield from apply(engine, units[:half], first_seen)
            yield from apply(engine, units[half:], first_seen)


def _apply_reading_again(engine: Engine, units: Sequence[Unit], first_seen: float | None) -> Committed:
    for _ in range(_CONFLICTS):
        try:
            return _apply(engine, units, first_seen)
        except Exception as error:
            if not is_conflict(error):
                raise
    return _apply(engine, units, first_seen)


def _apply(engine: Engine, units: Sequence[Unit], first_seen: float | None) -> Committed:
    requests = [unit.request for unit in units if not isinstance(unit.request, Unidentified)]
    with engine.begin() as connection:
        verdicts = iter(_decide(connection, requests, first_seen) if requests else ())
        results: list[Result] = [
            unit.request if isinstance(unit.request, Unidentified) else next(verdicts) for unit in units
        ]
        committed = Committed(uuid7(), tuple(results))
        records = committed.records
        if records:
            ledger.write_commands(connection, records)
            outbox.put(connection, committed.batch_id, [record.command_id for record in records])
        dead_letters.put(connection, list(_dead_letters(units, results)))
    return committed


def _decide(connection: Connection, requests: Sequence[Request], first_seen: float | None) -> list[Verdict]:
    """Lock, read, fold, and write the rows."""
    commands = [request for request in requests if not isinstance(request, Invalid)]
    students = ledger.lock_students(connection, {command.student_id for command in commands})
    courses = {course_id for command in commands for course_id in command.course_ids}
    state, now = ledger.read_state(connection, students, courses, {request.command_id for request in requests})
    waited = timedelta(seconds=0 if first_seen is None else monotonic() - first_seen)
    folded = fold(state, requests, now, first_seen=now - waited)
    ledger.write_changes(connection, folded.changes)
    return folded.verdicts


def _dead_letters(units: Sequence[Unit], results: Sequence[Result]) -> Iterator[NewDeadLetter]:
    for unit, result in zip(units, results, strict=True):
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


def _bury(engine: Engine, unit: Unit, reason: str) -> Committed:
    with engine.begin() as connection:
        letter = unit.dead_letter(DeadLetterCode.PROCESSING_FAILED, f"The command could not be processed: {reason}")
        dead_letters.put(connection, [letter])
    return Committed(uuid7(), (Failed(reason),))
