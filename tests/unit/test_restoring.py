"""A record made from its event is the record that the event was made from, as far as anybody is told."""

import random
from datetime import datetime, timedelta, timezone
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrollment.commands import Command, Enroll, Kind, Withdraw
from enrollment.errors import ErrorCode, Rejection
from enrollment.events import Event, event_of
from enrollment.fold import Record, Repeat, Reused, fold
from enrollment.parsing import parse_single
from enrollment.restoring import command_of, is_whole, record_of
from enrollment.waiting import Waiting
from enrollment.withdrawing import withdraw
from tests.unit.copies import apply, rows_of
from tests.unit.strategies import NOW, commands, empty_state

ID, OTHER = UUID(int=1), UUID(int=2)
LATER = NOW + timedelta(hours=1)


def event(**said: object) -> Event:
    """Return what is told of a command that is read from a message."""
    [told] = apply(empty_state(), [parse_single(Kind.ENROLL, ID, [], {"student_id": 1, "course_ids": [10], **said})])[1]
    return told


EVENTS = {
    "applied": event(issued_at=NOW, source="portal"),
    "that said no time": event(),
    "rejected": event(student_id=9),
    "invalid": event(course_ids=None),
    "that waits for its time": event(effective_at=LATER),
    "that waits for a course": event(course_ids=[99], issued_at=NOW, wait_until=LATER),
    "withdrawn before it came": event_of(withdraw({}, [Withdraw(command_id=OTHER, target=ID)], NOW)[1][0]),
    "traced": event().model_copy(update={"traceparent": f"00-{1:032x}-{1:016x}-01", "tracestate": "a=b"}),
}


@pytest.mark.parametrize("told", EVENTS.values(), ids=EVENTS)
def test_the_event_of_the_record_of_an_event_is_that_event(told: Event) -> None:
    assert event_of(record_of(told)).to_json() == told.to_json()


@given(commands(), st.randoms(use_true_random=False))
def test_rows_follow_from_the_events_in_any_order(sent: list[Command], order: random.Random) -> None:
    state, events = apply(empty_state(), sent)
    again = [command for it in events if it.type == "enrollment.applied.v1" and (command := command_of(it))]
    order.shuffle(again)
    assert rows_of(apply(empty_state(), again)[0].students) == rows_of(state.students)


@pytest.mark.parametrize("name", ["that waits for its time", "that waits for a course"])
def test_what_waits_waits_for_the_same_as_before(name: str) -> None:
    command = command_of(EVENTS[name])
    assert command is not None
    [record] = fold(empty_state(), [command], NOW).verdicts
    assert isinstance(record, Record)
    assert isinstance(record.waiting, Waiting)
    assert record.waiting == record_of(EVENTS[name]).waiting
    assert record.issued_at == EVENTS[name].data.issued_at


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (Enroll(command_id=ID, student_id=1, course_ids=(10,)), Repeat),
        (Enroll(command_id=ID, student_id=1, course_ids=(10, 10), effective_at=NOW), Repeat),
        (Enroll(command_id=ID, student_id=1, course_ids=(11,)), Reused),
        (Enroll(command_id=ID, student_id=1, course_ids=(10,), source="other"), Reused),
        (parse_single(Kind.ENROLL, ID, [], {}), Reused),
    ],
)
def test_a_repeat_of_what_was_put_back_is_told_by_all_but_its_times(said: Command, verdict: type) -> None:
    state = empty_state()
    state.processed[ID] = record_of(event(issued_at=NOW)).content_hash
    assert isinstance(fold(state, [said], NOW).verdicts[0], verdict)


def test_whatever_comes_under_the_id_of_an_invalid_command_is_a_repeat() -> None:
    state = empty_state()
    state.processed[ID] = record_of(EVENTS["invalid"]).content_hash
    assert isinstance(fold(state, [Enroll(command_id=ID, student_id=1, course_ids=(10,))], NOW).verdicts[0], Repeat)


def test_an_event_that_enrolls_nobody_is_none_of_ours() -> None:
    told = EVENTS["applied"]
    assert is_whole(told)
    assert not is_whole(told.model_copy(update={"data": told.data.model_copy(update={"student_id": None})}))


@pytest.mark.parametrize(
    ("where", "what"),
    [
        ("data", {"course_ids": (2**63,)}),
        ("data", {"enrolled": (0,)}),
        ("data", {"student_id": -1}),
        ("data", {"command_id": uuid4()}),
        ("data", {"errors": (Rejection(code=ErrorCode.UNKNOWN_STUDENT, message="a\0b"),)}),
        ("data", {"issued_at": datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))}),
        ("", {"time": datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14)))}),
        ("", {"traceparent": "a\0b"}),
    ],
)
def test_an_event_that_says_what_no_table_takes_is_none_of_ours(where: str, what: dict[str, object]) -> None:
    told = EVENTS["applied"].model_copy(update={"type": "enrollment.rejected.v1"})
    assert is_whole(told)
    update = {"data": told.data.model_copy(update=what)} if where else what
    assert not is_whole(told.model_copy(update=update))
