"""One example of each message, as the documents show it: commands, what stands on the queue, and what comes of them."""

import json
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from enrollment import names
from enrollment.commands import Command, Enroll, Replace, Unenroll, Withdraw, as_fields
from enrollment.events import Event, event_of
from enrollment.fold import Record, fold
from enrollment.parsing import Request, parse_single
from enrollment.state import BEFORE_ALL, Pair, State, StudentState

ISSUED_AT: Final = datetime(2026, 1, 31, 9, 30, 0, 481, tzinfo=UTC)
_STEP: Final = timedelta(microseconds=1)  # a command is later than the one before
PROCESSED_AT: Final = ISSUED_AT + timedelta(microseconds=48_213)
STUDENT: Final = 42
COURSES: Final = frozenset({101, 102, 103})


def _id(number: int) -> UUID:
    return UUID(f"019c1363-49c0-7000-8000-{number:012}")


ENROLL: Final = Enroll(
    command_id=_id(1), student_id=STUDENT, course_ids=(101, 102), issued_at=ISSUED_AT, source="portal"
)
UNENROLL: Final = Unenroll(
    command_id=_id(2), student_id=STUDENT, course_ids=(102,), issued_at=ISSUED_AT + _STEP, source="portal"
)
REPLACE: Final = Replace(
    command_id=_id(3), student_id=STUDENT, course_ids=(101, 103), issued_at=ISSUED_AT + 2 * _STEP, source="sis:nightly"
)
UNKNOWN_COURSE: Final = Enroll(
    command_id=_id(4), student_id=STUDENT, course_ids=(101, 999), issued_at=ISSUED_AT, source="portal"
)
PATIENT: Final = UNKNOWN_COURSE.model_copy(update={"command_id": _id(6), "wait_until": ISSUED_AT + timedelta(hours=1)})
LATER: Final = ENROLL.model_copy(update={"command_id": _id(7), "effective_at": ISSUED_AT + timedelta(days=1)})
WITHDRAW: Final = Withdraw(command_id=_id(8), target=PATIENT.command_id, source="portal")
MISSPELT: Final = parse_single(ENROLL.kind, _id(5), [], {"student_id": STUDENT, "course_id": 101})
APPLY_ID: Final = _id(9)  # of the message; the commands in it have ids of their own

COMMANDS: Final[Mapping[str, Command]] = {names.ENROLL: ENROLL, names.UNENROLL: UNENROLL, names.REPLACE: REPLACE}
SINGLE: Final[Mapping[str, Command | Withdraw]] = {**COMMANDS, names.WITHDRAW: WITHDRAW}
DELIVERY_TAG: Final = "4b1f7a52-5c1f-4d0b-8f3e-0a6f2f1f7c11"


def arguments(command: Command | Withdraw) -> dict[str, Any]:
    """Return the keyword arguments of a single command's message."""
    return {name: value for name, value in as_fields(command).items() if name not in ("command_id", "command")}


def entry(command: Command) -> str:
    """Return a command as it stands in the list of its queue, in the least that every Celery worker takes."""
    task_id = str(command.command_id)
    body = _compact([[], arguments(command), {}])
    return _compact(
        {
            "body": b64encode(body.encode()).decode(),
            "content-encoding": "utf-8",
            "content-type": "application/json",
            "headers": {"task": names.TASKS[command.kind], "id": task_id},
            "properties": {
                "body_encoding": "base64",
                "correlation_id": task_id,
                "delivery_info": {"exchange": "", "routing_key": names.QUEUE},
                "delivery_mode": 2,
                "delivery_tag": DELIVERY_TAG,
            },
        }
    )


def event(request: Request) -> Event:
    """Return what comes of a command for a student who is in course 102 alone, as the worker decides it."""
    student = StudentState({102: Pair(enrolled=True, stamp=BEFORE_ALL)})
    [verdict] = fold(State({STUDENT: student}, set(COURSES)), [request], PROCESSED_AT).verdicts
    assert isinstance(verdict, Record)  # noqa: S101 (a command that was never seen is decided)
    return event_of(verdict)


def withdrawn(command: Command) -> Event:
    """Return what comes of a command that is withdrawn."""
    told = event(command)
    rest = told.data.model_copy(update={"waiting_for": (), "until": None})
    return told.model_copy(update={"type": "enrollment.withdrawn.v1", "data": rest})


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
