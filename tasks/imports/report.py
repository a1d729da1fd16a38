"""The report of an import: one line for each row of the files, and one for each who was absent. Streamed."""

import csv
import json
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import Any, Final, Literal, TextIO

from models.imports import ImportRecord

COLUMNS: Final = ("file", "line", "student", "course", "asked", "plan", "outcome", "code", "message", "command_id")
_SENT: Final = ("enroll", "unenroll", "unchanged", "withdraw")
_LEFT_OUT: Final = "The file was not read: its header is of no file that is imported, or the manifest calls it absent."


class Exit(IntEnum):
    """How the command line ends."""

    DONE = 0
    FAILED = 1
    REJECTED = 3  # done, but some rows were rejected
    WITHHELD = 4  # done, but the absent were not taken out


def exit_code(record: ImportRecord) -> Exit:
    """Return how an import ended, or how its plan would."""
    if record.withheld is not None:
        return Exit.WITHHELD
    wrong = record.counts.get("rejected", 0) + record.outcomes.get("rejected", 0) + record.outcomes.get("dead", 0)
    return Exit.REJECTED if wrong else Exit.DONE


def left_out(record: ImportRecord) -> list[str]:
    """Return the files that are none of ours, or that a manifest calls absent."""
    return list(record.options.get("left_out", ()))


def lines(record: ImportRecord, rows: Iterable[Any]) -> Iterator[dict[str, Any]]:
    """Give each row as the report has it, then the files that were left out; of a plan the outcome is empty."""
    for row in rows:
        is_sent = row.planned in _SENT
        outcome, code, message = None if is_sent else row.planned, row.code, row.message
        if is_sent and row.outcome is not None:
            outcome = row.effect or row.outcome
            if row.errors:
                code, message = row.errors[0]["code"], " ".join(error["message"] for error in row.errors)
        elif is_sent and row.dead_code is not None:
            outcome, code, message = "dead_letter", row.dead_code, row.dead_message
        elif is_sent and row.number <= record.decided:  # it was there then
            outcome, message = "removed", "Retention has removed what came of this command"
        elif is_sent and record.state != "planned":
            outcome = "pending"
        elif record.state == "planned":
            outcome = None
        yield {
            "file": record.files[row.file - 1] if row.file else None,
            "line": row.line,
            "student": row.student or row.student_id,
            "course": row.course or row.course_id,
            "asked": row.asked,
            "plan": row.planned,
            "outcome": outcome,
            "code": code,
            "message": message,
            "command_id": str(row.command_id) if row.command_id and is_sent else None,
        }
    for name in left_out(record):
        said = {"file": name, "plan": "left_out", "outcome": "left_out", "message": _LEFT_OUT}
        yield dict.fromkeys(COLUMNS) | said


def write(stream: TextIO, kind: Literal["csv", "json"], items: Iterable[dict[str, Any]]) -> None:
    """Write a report as CSV, or as one JSON array with an object a line."""
    stream.writelines(texts(kind, items))


def texts(kind: Literal["csv", "json"], items: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Give a report piece by piece."""
    if kind == "json":
        before = "[\n"
        for item in items:
            yield before + json.dumps(item, ensure_ascii=False)
            before = ",\n"
        yield "\n]\n" if before == ",\n" else "[]\n"
        return
    line = _Line()
    writer = csv.writer(line, lineterminator="\n")
    writer.writerow(COLUMNS)
    yield line.text
    for item in items:
        writer.writerow(item.values())
        yield line.text


class _Line:
    """Takes what a csv.writer writes, which is one line at a time."""

    text = ""

    def write(self, text: str) -> None:
        self.text = text
