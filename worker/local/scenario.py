"""What the demo sends, and what must come of it: valid commands, repeats, late ones, unknown ids, and nonsense."""

import json
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from redis import Redis

from enrollment.client import Client
from enrollment.errors import DeadLetterCode
from enrollment.ids import uuid7
from enrollment.names import ENROLL, QUEUE

COURSES: Final = range(101, 126)
NO_STUDENT: Final = 9001
NO_COURSE: Final = 999
LATE_STUDENT: Final = 121  # the first of those whose newer command came first
LATE_COURSE: Final = COURSES[0] + LATE_STUDENT % len(COURSES)
PORTAL: Final = "portal"


@dataclass
class Stage:
    """Where the parts play."""

    client: Client
    redis: Redis
    begin: datetime = field(default_factory=lambda: datetime.now(UTC) - timedelta(hours=1))
    ids: list[UUID] = field(default_factory=list)  # of the first part's commands

    def at(self, minutes: int) -> datetime:
        """Return the time so many minutes after everything began."""
        return self.begin + timedelta(minutes=minutes)

    def push(self, entry: str) -> None:
        """Put on the queue what may be no message at all, as any program can that has the password."""
        self.redis.lpush(QUEUE, entry)


@dataclass(frozen=True)
class Part:
    """Some messages, and what must come of them."""

    title: str
    play: Callable[[Stage], None]
    messages: int
    applied: int = 0
    rejected: int = 0
    rows: int = 0
    superseded: int = 0
    dead: Sequence[DeadLetterCode] = ()


def _courses(student_id: int, count: int) -> list[int]:
    """Return different courses, the same for each run; `LATE_COURSE` is the first of `LATE_STUDENT`."""
    return [COURSES[0] + (student_id + 5 * k) % len(COURSES) for k in range(count)]


def _enroll(stage: Stage) -> None:
    for student_id in range(1, 121):
        courses = _courses(student_id, 3)
        stage.ids.append(
            stage.client.enroll(student_id, courses, issued_at=stage.at(0), source=PORTAL, command_id=uuid7())
        )


def _repeat(stage: Stage) -> None:
    for student_id, command_id in enumerate(stage.ids[:40], 1):
        courses = _courses(student_id, 3)
        stage.client.enroll(student_id, courses, issued_at=stage.at(0), source=PORTAL, command_id=command_id)


def _late(stage: Stage) -> None:
    for student_id in range(LATE_STUDENT, LATE_STUDENT + 20):
        first, second = _courses(student_id, 2)
        stage.client.enroll(student_id, [first], issued_at=stage.at(0), source=PORTAL)
        stage.client.unenroll(student_id, [first], issued_at=stage.at(20), source=PORTAL)
        stage.client.enroll(student_id, [first, second], issued_at=stage.at(10), source=PORTAL)


def _replace(stage: Stage) -> None:
    for student_id in range(141, 151):
        first, second, _, fourth = _courses(student_id, 4)
        stage.client.enroll(student_id, [first, second], issued_at=stage.at(0), source=PORTAL)
        stage.client.replace(student_id, [first, fourth], issued_at=stage.at(30), source="advisor")


def _apply(stage: Stage) -> None:
    with stage.client.bulk() as bulk:
        for student_id in range(151, 201):
            first, second = _courses(student_id, 2)
            bulk.enroll(student_id, [first, second], issued_at=stage.at(0), source="import")
            bulk.unenroll(student_id, [first], issued_at=stage.at(5), source="import")


def _foreign(stage: Stage) -> None:
    stage.push(foreign_message(ENROLL, str(uuid7()), [1, [COURSES[-1]]], {}))


def _unknown(stage: Stage) -> None:
    for number in range(6):
        stage.client.enroll(NO_STUDENT + number, [COURSES[0]], source=PORTAL)
        stage.client.enroll(number + 1, [COURSES[0], NO_COURSE], source=PORTAL)


def _nonsense(stage: Stage) -> None:
    good = {"student_id": 2, "course_ids": [COURSES[0]]}
    stage.push(foreign_message(ENROLL, str(uuid7()), [], {"student_id": 2, "course_id": [COURSES[0]]}))
    stage.push(foreign_message(ENROLL, str(stage.ids[0]), [], good))
    stage.push(foreign_message(ENROLL, "order-17", [], good))
    stage.push(foreign_message("enrollment.enrol.v1", str(uuid7()), [], good))
    stage.push(foreign_message(ENROLL, str(uuid7()), [], good, body="bm90IEpTT04="))
    stage.push("hello?")


PARTS: Final = (
    Part("students enroll in three courses each", _enroll, messages=120, applied=120, rows=360),
    Part("of these come a second time", _repeat, messages=40),
    Part("of which every third is old and late", _late, messages=60, applied=60, rows=20, superseded=20),
    Part("enroll, then replace all by two", _replace, messages=20, applied=20, rows=20),
    Part("message that carries 100 commands", _apply, messages=1, applied=100, rows=50),
    Part("made by hand, as by another language", _foreign, messages=1, applied=1, rows=1),
    Part("name a student or course there is not", _unknown, messages=12, rejected=12),
    Part(
        "are nonsense, each in its own way",
        _nonsense,
        messages=6,
        rejected=1,
        dead=(
            DeadLetterCode.INVALID_COMMAND,
            DeadLetterCode.COMMAND_ID_REUSED,
            DeadLetterCode.COMMAND_ID_MISSING,
            DeadLetterCode.UNKNOWN_TASK,
            DeadLetterCode.UNDECODABLE_BODY,
            DeadLetterCode.NOT_A_MESSAGE,
        ),
    ),
)


@dataclass(frozen=True)
class Numbers:
    """What can be counted when all is done."""

    applied: int
    rejected: int
    rows: int
    superseded: int
    dead_letters: Mapping[str, int]


EXPECTED: Final = Numbers(
    applied=sum(part.applied for part in PARTS),
    rejected=sum(part.rejected for part in PARTS),
    rows=sum(part.rows for part in PARTS),
    superseded=sum(part.superseded for part in PARTS),
    dead_letters=Counter(code.value for part in PARTS for code in part.dead),
)


def foreign_message(task: str, task_id: str, args: list[Any], kwargs: dict[str, Any], *, body: str = "") -> str:
    """Return a Celery message with no more in it than the protocol asks for, as other languages' clients make it."""
    if not body:
        body = b64encode(json.dumps([args, kwargs, {}]).encode()).decode()
    return json.dumps(
        {
            "body": body,
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "headers": {"lang": "js", "task": task, "id": task_id},
            "properties": {
                "correlation_id": task_id,
                "body_encoding": "base64",
                "delivery_mode": 2,
                "delivery_tag": str(uuid7()),
                "delivery_info": {"exchange": "", "routing_key": QUEUE},
            },
        }
    )
