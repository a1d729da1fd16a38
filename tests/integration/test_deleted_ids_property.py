"""Any interleaving of commands, late commands, deletions and returns: table, copy and a plain reckoning agree."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, LiteralString, NamedTuple
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis

from enrollment.copy import follow
from enrollment.events import Event
from enrollment.names import ENROLL, REPLACE, UNENROLL
from enrollment.state import StudentState
from tests.integration.conftest import message
from tests.unit.copies import Rows, rows_of
from worker.service import Service

STUDENTS, COURSES = (1, 2), (10, 11, 12)
EMPTY: LiteralString = """
    TRUNCATE students, courses, closed_courses, student_courses;
    TRUNCATE tombstones, replace_marks, commands, outbox, dead_letters;
    INSERT INTO students (id) VALUES (1), (2);
    INSERT INTO courses (id) VALUES (10), (11), (12);
"""


class Sent(NamedTuple):
    """A command that arrives now, and says that it was issued so many steps ago."""

    task: str
    student: int
    courses: list[int]
    late: int


class Deleted(NamedTuple):
    table: LiteralString
    id: int


class Returned(NamedTuple):
    table: LiteralString
    id: int


_students = st.sampled_from(STUDENTS)
_ids = st.one_of(
    st.tuples(st.just("students"), _students),
    st.tuples(st.just("courses"), st.sampled_from(COURSES)),
    st.tuples(st.just("student_courses"), _students),
)
_sent = st.builds(
    Sent,
    st.sampled_from((ENROLL, ENROLL, UNENROLL, REPLACE)),
    _students,
    st.lists(st.sampled_from(COURSES), min_size=1, max_size=3, unique=True),
    st.integers(0, 6),
)
_deleted = _ids.map(lambda it: Deleted(*it))
_returned = _ids.filter(lambda it: it[0] != "student_courses").map(lambda it: Returned(*it))
_steps = st.lists(st.one_of(_sent, _sent, _deleted, _returned), min_size=4, max_size=14)

Stamp = tuple[int, int, Any]


def reckon(steps: list[tuple[int, Any, Any]]) -> Rows:
    """Say what is enrolled in the end. A deletion is an unenroll, later than what was issued in its step or before."""
    there = {("students", it) for it in STUDENTS} | {("courses", it) for it in COURSES}
    stamps: dict[tuple[int, int], tuple[Stamp, bool]] = {}
    for step, did, command_id in steps:
        match did:
            case Returned():
                there.add((did.table, did.id))
            case Deleted():
                there.discard((did.table, did.id))
                for (student, course), (_, enrolled) in stamps.items():
                    if enrolled and did.id == (course if did.table == "courses" else student):
                        stamps[student, course] = ((step, 1, 0), False)
            case _ if {("students", did.student), *(("courses", it) for it in did.courses)} <= there:
                stamp = (step - min(did.late, step), 0, command_id)
                decides = dict.fromkeys(did.courses, did.task != UNENROLL)
                for course in COURSES if did.task == REPLACE else decides:
                    if stamps.get((did.student, course), ((-1, 0, 0), False))[0] < stamp:
                        stamps[did.student, course] = (stamp, decides.get(course, False))
    return {pair for pair, (_, enrolled) in stamps.items() if enrolled}


@pytest.fixture
def play(service: Service, database_url: str, redis_client: Redis) -> Callable[[list[Any]], list[tuple[int, Any, Any]]]:
    """Give a function that does these steps, and returns them with their numbers and the ids of their commands."""

    def run(steps: list[Any]) -> list[tuple[int, Any, Any]]:
        redis_client.flushall()
        times: list[str] = []
        done: list[tuple[int, Any, Any]] = []
        with psycopg.connect(database_url, autocommit=True) as owner:
            owner.execute(EMPTY)
            for number, step in enumerate(steps):
                times.append(datetime.now(UTC).isoformat())
                command_id = uuid4()
                done.append((number, step, command_id))
                match step:
                    case Sent():
                        at = times[number - min(step.late, number)]
                        said = message(step.task, step.student, step.courses, issued_at=at, task_id=command_id)
                        service.handle([said])
                    case Deleted("student_courses"):
                        owner.execute("DELETE FROM student_courses WHERE student_id = %s", [step.id])
                    case Deleted():
                        owner.execute(f"DELETE FROM {step.table} WHERE id = %s", [step.id])
                    case _:
                        add: LiteralString = f"INSERT INTO {step.table} (id) VALUES (%s) ON CONFLICT DO NOTHING"
                        owner.execute(add, [step.id])
        service.relay(older_than=0)
        return done

    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("""
            ALTER TABLE student_courses
                DROP CONSTRAINT student_courses_student_id_fkey, DROP CONSTRAINT student_courses_course_id_fkey,
                ADD FOREIGN KEY (student_id) REFERENCES students ON DELETE CASCADE,
                ADD FOREIGN KEY (course_id) REFERENCES courses ON DELETE CASCADE
        """)
    return run


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps, data=st.data())
def test_table_copy_and_reckoning_agree(
    play: Callable[[list[Any]], list[tuple[int, Any, Any]]],
    rows: Callable[..., list[tuple[Any, ...]]],
    events: Callable[[], list[dict[str, Any]]],
    steps: list[Any],
    data: st.DataObject,
) -> None:
    done = play(steps)
    told = events()
    assert len({event["id"] for event in told}) == len(told) == len(rows("*", "commands"))
    copy: dict[int, StudentState] = {}
    for event in data.draw(st.permutations(told)):
        follow(copy, Event.model_validate(event))
    assert set(rows("student_id, course_id", "student_courses")) == rows_of(copy) == reckon(done)
