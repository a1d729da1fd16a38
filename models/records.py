"""Rows of `commands` as the records that the rest of the project knows."""

from typing import Any, Final

from sqlalchemy import Row

from enrollment.commands import Kind
from enrollment.errors import Rejection
from enrollment.fold import Effects, Record

RECORD_COLUMNS: Final = """command_id, command, student_id, course_ids, issued_at, source, outcome,
    enrolled, unenrolled, unchanged, superseded, errors, processed_at, content_hash"""


def record_of(row: Row[Any]) -> Record:
    """Return the record kept in a row that has `RECORD_COLUMNS`."""
    return Record(
        command_id=row.command_id,
        command=None if row.command is None else Kind(row.command),
        student_id=row.student_id,
        course_ids=None if row.course_ids is None else tuple(row.course_ids),
        issued_at=row.issued_at,
        source=row.source,
        outcome=row.outcome,
        effects=Effects(tuple(row.enrolled), tuple(row.unenrolled), tuple(row.unchanged), tuple(row.superseded)),
        errors=tuple(Rejection.model_validate(error) for error in row.errors),
        processed_at=row.processed_at,
        content_hash=row.content_hash,
    )
