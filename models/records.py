"""Rows of `commands` as the records that the rest of the project knows."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Row

from enrollment.commands import Kind
from enrollment.errors import Rejection
from enrollment.fold import Effects, Record
from enrollment.waiting import Waiting
from models.arrays import Binary, bigints, blobs, nested, nullable, plain, quoted, times, uuids


class _Column(NamedTuple):
    """How a column of `commands` is written: as one array of texts or numbers, whatever the number of records."""

    type: str  # of the array's items
    array: Callable[[Sequence[Any]], str | Binary]
    stored: str = "{}"  # the column's value, of an item


_IDS: Final = _Column("text", nested, "{}::bigint[]")
_COMMON: Final[Mapping[str, _Column]] = {
    "command_id": _Column("uuid", uuids),
    "command": _Column("text", nullable),
    "student_id": _Column("bigint", bigints),
    "course_ids": _IDS,
    "issued_at": _Column("timestamptz", times),
    "source": _Column("text", quoted),
    "outcome": _Column("text", plain),
    **dict.fromkeys(Effects._fields, _IDS),
    "errors": _Column("text", lambda of_all: quoted(map(_errors, of_all)), "{}::jsonb"),
    "content_hash": _Column("bytea", blobs),
}
_RARE: Final[Mapping[str, _Column]] = {  # columns that most records leave empty
    "waiting": _Column("text", lambda of_all: quoted(map(_waiting, of_all)), "{}::jsonb"),
    "target": _Column("uuid", lambda of_all: nullable([target and target.hex for target in of_all])),
    "trace": _Column("text", quoted),
}
_ALL: Final = {**_COMMON, **_RARE}
RECORD_COLUMNS: Final = f"{', '.join(_ALL)}, processed_at"


def _put(columns: Mapping[str, _Column]) -> str:
    return f"""
    INSERT INTO commands ({", ".join(columns)}, processed_at)
    SELECT {", ".join(column.stored.format(name) for name, column in columns.items())}, :processed_at
      FROM unnest({", ".join(f"CAST(:{name} AS {column.type}[])" for name, column in columns.items())})
        AS t({", ".join(columns)})
     ORDER BY command_id
"""


# In id order, for the same reason as the lock: another batch may hold the same command id under another student.
PUT_RECORDS: Final = _put(_COMMON)
PUT_RARE_RECORDS: Final = _put(_ALL)


def is_rare(record: Record) -> bool:
    """Tell whether a record needs the columns that most leave empty."""
    return record.waiting is not None or record.target is not None or record.trace is not None


def parameters_of(records: Sequence[Record], *, rare: bool = False) -> dict[str, Any]:
    """Return the parameters of `PUT_RECORDS`, or of `PUT_RARE_RECORDS`; the records are those of one batch."""
    values = dict(zip(Record._fields, zip(*records, strict=True), strict=True))
    values |= zip(Effects._fields, zip(*values["effects"], strict=True), strict=True)
    arrays = {name: column.array(values[name]) for name, column in (_ALL if rare else _COMMON).items()}
    return {**arrays, "processed_at": records[0].processed_at}


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
        waiting=None if row.waiting is None else Waiting.model_validate(row.waiting),
        target=row.target,
        trace=row.trace,
    )


def _waiting(waiting: Waiting | None) -> str | None:
    return None if waiting is None else waiting.model_dump_json()


def _errors(errors: Sequence[Rejection]) -> str:
    return json.dumps([error.model_dump(mode="json") for error in errors]) if errors else "[]"
