from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest
from sqlalchemy import Connection

from enrollment.commands import Enroll, Kind, Replace, Unenroll
from enrollment.errors import ErrorCode, UnknownCommand, UnknownCourse
from enrollment.fold import Record, fold
from enrollment.parsing import Request, parse_single
from models import ledger, queries, student_locks
from tests.integration.conftest import counted


def process(connection: Connection, *requests: Request) -> None:
    """Do what the worker does with one batch."""
    students, _ = student_locks.lock_students(
        connection, {r.student_id for r in requests if r.student_id is not None}
    )()
    state, now = ledger.read_state(connection, students, requests)(students)
    folded = fold(state, requests, now)
    ledger.write_changes(connection, folded.changes)
    records = [verdict for verdict in folded.verdicts if isinstance(verdict, Record)]
    ledger.write_commands(connection, records, uuid4())
    connection.commit()


def at(hour: int) -> datetime:
    return datetime(2026, 1, 31, hour, tzinfo=UTC)


def enroll(hour: int, *course_ids: int, student_id: int = 1) -> Enroll:
    return Enroll(command_id=uuid4(), student_id=student_id, course_ids=course_ids, issued_at=at(hour))


def unenroll(hour: int, *course_ids: int) -> Unenroll:
    return Unenroll(command_id=uuid4(), student_id=1, course_ids=course_ids, issued_at=at(hour))


def replace(hour: int, *course_ids: int) -> Replace:
    return Replace(command_id=uuid4(), student_id=1, course_ids=course_ids, issued_at=at(hour))


# What came of a command


def test_the_record_of_a_command_says_what_was_asked_and_what_came_of_it(connection: Connection) -> None:
    asked = Enroll(
        command_id=uuid4(),
        student_id=1,
        course_ids=(103, 101),
        issued_at=at(9),
        source="portal",
    )
    process(connection, asked)
    record = queries.command(connection, asked.command_id)
    assert (record.command, record.student_id, record.course_ids) == (Kind.ENROLL, 1, (103, 101))
    assert (record.issued_at, record.source, record.outcome) == (at(9), "portal", "applied")
    assert record.effects._asdict() == {
        "enrolled": (103,),
        "unenrolled": (),
        "unchanged": (101,),
        "superseded": (),
    }
    assert record.errors == ()


def test_the_record_of_an_invalid_command_has_none_for_what_it_did_not_say(connection: Connection) -> None:
    invalid = parse_single(Kind.ENROLL, uuid4(), (), {"course_ids": "101"})
    process(connection, invalid)
    record = queries.command(connection, invalid.command_id)
    assert (record.outcome, record.student_id, record.course_ids) == ("rejected", None, None)
    assert [error.code for error in record.errors] == [ErrorCode.INVALID_COMMAND]


def test_a_command_that_was_not_processed_is_unknown(connection: Connection) -> None:
    with pytest.raises(UnknownCommand, match="00000000-0000-0000-0000-000000000001"):
        queries.command(connection, UUID(int=1))


# The history of a pair


def told(connection: Connection, course_id: int, **options: int) -> list[tuple[UUID, str | None, bool]]:
    entries = queries.history(connection, 1, course_id, **options)
    return [(entry.record.command_id, entry.effect, entry.owns) for entry in entries]


def test_the_history_of_a_pair_comes_in_order_of_stamp_whatever_the_order_of_arrival(connection: Connection) -> None:
    first, second, third = enroll(9, 103), unenroll(10, 103, 101), enroll(11, 103)
    for late in (third, first, second):
        process(connection, late)
    assert told(connection, 103) == [
        (first.command_id, "superseded", False),
        (second.command_id, "superseded", False),
        (third.command_id, "enrolled", True),
    ]
    assert told(connection, 101) == [(second.command_id, "unenrolled", True)]


def test_the_history_names_the_replace_that_took_the_course_away_without_naming_it(connection: Connection) -> None:
    first, second = enroll(9, 103), replace(10, 101)
    process(connection, first, second)
    assert told(connection, 103) == [(first.command_id, "enrolled", False), (second.command_id, "unenrolled", True)]
    assert told(connection, 101) == [(second.command_id, "unchanged", True)]


def test_a_replace_that_left_the_course_out_owns_the_pair_though_it_had_nothing_to_take(connection: Connection) -> None:
    decides, late = replace(10, 101), enroll(9, 103)
    process(connection, decides)
    process(connection, late)
    assert told(connection, 103) == [(late.command_id, "superseded", False), (decides.command_id, None, True)]


def test_a_rejected_command_is_in_the_history_without_an_effect(connection: Connection) -> None:
    rejected, applied = enroll(10, 103, 404), enroll(9, 103)
    process(connection, rejected, applied)
    assert told(connection, 103) == [(applied.command_id, "enrolled", True), (rejected.command_id, None, False)]
    with pytest.raises(UnknownCourse):
        queries.history(connection, 1, 404)


def test_a_pair_that_is_older_than_the_worker_has_no_history_and_belongs_to_no_command(connection: Connection) -> None:
    assert told(connection, 101) == []
    again = enroll(9, 101)
    process(connection, again)
    assert told(connection, 101) == [(again.command_id, "unchanged", True)]


def test_other_students_and_other_courses_are_not_in_the_history(connection: Connection) -> None:
    process(connection, enroll(9, 103, student_id=2), enroll(9, 102))
    assert told(connection, 103) == []


def test_a_long_history_is_cut_to_the_newest(connection: Connection) -> None:
    commands = [enroll(hour, 103) for hour in range(5)]
    process(connection, *commands)
    with counted() as statements:
        assert [entry[0] for entry in told(connection, 103, limit=2)] == [c.command_id for c in commands[3:]]
    assert len(statements) == 1
