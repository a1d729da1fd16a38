"""What came of each message, in a few words, for Flower and the log."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import assert_never

from enrollment.commands import format_time
from enrollment.fold import Record, Repeat, Reused
from enrollment.names import KINDS
from enrollment.parsing import Unidentified
from models.deferred import Reason
from tasks.deferring import PutOff
from tasks.messages import Message, Unit
from tasks.transaction import Failed, Result

_SHOWN_IDS = 10
_DEFERRED = {
    Reason.STUDENT: "student is locked",
    Reason.COURSE: "course is locked",
    Reason.ENROLLMENTS: "enrollments are locked",
    Reason.OTHER: "rows are locked",
    Reason.DEAD_LETTERS: "dead letters are locked",
    Reason.TIME: "its time has not come",
    Reason.UNKNOWN_COURSE: "course is unknown",
    Reason.UNKNOWN_STUDENT: "student is unknown",
}


class Failure(str):
    """The line of a message that became a dead letter without an outcome, or all of it that could be read."""

    __slots__ = ()


def summaries(messages: Sequence[Message], decided: Iterable[tuple[Unit, Result]]) -> list[str]:
    """Return a line per message: `applied`, `rejected unknown_courses [999]`, or counts for an `apply` message."""
    of_message: list[list[Result]] = [[] for _ in messages]
    for unit, result in decided:
        of_message[unit.index].append(result)
    return [
        _counts(results) if KINDS[message.task] is None else _summary(results[0])
        for message, results in zip(messages, of_message, strict=True)
    ]


def _summary(result: Result) -> str:
    match result:
        case Record():
            return _record(result)
        case Repeat():
            return "repeat"
        case Reused():
            return Failure("dead letter command_id_reused")
        case Unidentified():
            return Failure(f"dead letter {result.code}")
        case Failed():
            return Failure(f"dead letter processing_failed: {result.reason}")
        case PutOff():
            return f"deferred: {_DEFERRED[result.wait.reason]}"
        case _:
            assert_never(result)


def _record(record: Record) -> str:
    if record.waiting is None:
        return " ".join([record.outcome, *(f"{e.code} {_ids(e.ids or e.fields)}" for e in record.errors)])
    needs = [f"{need.code} {_ids(need.ids)}" if need.ids else need.code for need in record.waiting.waiting_for]
    return f"waiting for {', '.join(needs)} until {format_time(record.waiting.until)}"


def _ids(ids: Sequence[int | str]) -> str:
    more = ", …" if len(ids) > _SHOWN_IDS else ""
    return f"[{', '.join(map(str, ids[:_SHOWN_IDS]))}{more}]"


def _counts(results: Sequence[Result]) -> str:
    def name(result: Result) -> str:
        match result:
            case Record():
                return result.outcome
            case Repeat():
                return "repeated"
            case PutOff():
                return "deferred"
            case _:
                return "dead letters"

    counts = Counter(map(name, results))
    if counts.keys() == {"dead letters"} and len(results) == 1:
        return _summary(results[0])
    order = ("applied", "rejected", "waiting", "withdrawn", "repeated", "deferred", "dead letters")
    return ", ".join(f"{counts[word]} {word}" for word in order if counts[word])
