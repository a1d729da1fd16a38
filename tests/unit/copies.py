"""A database without a database: the fold over its state, the rows, and the events."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from enrollment.events import Event, event_of
from enrollment.fold import Record, fold
from enrollment.parsing import Request
from enrollment.state import State, StudentState
from tests.unit.strategies import NOW

Rows = set[tuple[int, int]]


def rows_of(students: Mapping[int, StudentState]) -> Rows:
    """What `student_courses` holds."""
    return {(number, course) for number, it in students.items() for course, pair in it.pairs.items() if pair.enrolled}


def apply(state: State, requests: Sequence[Request], now: datetime = NOW) -> tuple[State, list[Event]]:
    """Apply one batch, as a worker does; give the database as it is then, and the events."""
    folded = fold(state, requests, now)
    records = [verdict for verdict in folded.verdicts if isinstance(verdict, Record)]
    processed = {record.command_id: record.content_hash for record in records}
    after = State(state.students | folded.students, state.courses, state.processed | processed)
    return after, [event_of(record) for record in records]
