from contextlib import closing
from copy import deepcopy
from datetime import UTC, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from enrollment.commands import Command, Enroll, Kind, Replace, Unenroll
from enrollment.consumer import Entry
from enrollment.copy import decisions, follow, sortable
from enrollment.events import Event
from enrollment.parsing import parse_single
from enrollment.state import Pair, Stamp, StudentState
from examples.python import copy_to_sqlite as example
from tests.unit.copies import Rows, apply, rows_of
from tests.unit.strategies import COURSES, NOW, STUDENTS, commands, empty_state

ONE, TWO = UUID(int=1), UUID(int=2)


def without_stamp(command: Command) -> Command:
    return command.model_copy(update={"issued_at": None})


@st.composite
def batches(draw: st.DrawFn) -> list[list[Command]]:
    """Batches in the order of their commits: some commands without a stamp, some repeated."""
    sent = [without_stamp(it) if draw(st.integers(0, 4)) == 0 else it for it in draw(commands())]
    arriving = draw(st.permutations([*sent, *draw(st.lists(st.sampled_from(sent), max_size=4))] if sent else []))
    cuts = sorted(draw(st.sets(st.integers(0, len(arriving)), max_size=4)))
    return [list(arriving[i:j]) for i, j in zip([0, *cuts], [*cuts, len(arriving)], strict=True)]


@given(batches=batches(), data=st.data())
def test_events_in_any_order_and_any_number_make_the_copy_equal_to_the_rows(
    batches: list[list[Command]], data: st.DataObject
) -> None:
    state, events = empty_state(), []
    for number, batch in enumerate(batches):
        state, published = apply(state, batch, NOW + timedelta(seconds=number))
        events += published
    repeated = data.draw(st.lists(st.sampled_from(events), max_size=5)) if events else []
    copy: dict[int, StudentState] = {}
    for event in data.draw(st.permutations([*events, *repeated])):
        follow(copy, Event.model_validate_json(event.to_json()))
    assert rows_of(copy) == rows_of(state.students)


_before = st.sets(st.tuples(st.sampled_from(STUDENTS), st.sampled_from(COURSES)))


@given(batches=batches(), before=_before, data=st.data())
def test_a_copy_that_began_with_the_tables_ends_equal_whatever_older_events_it_still_reads(
    batches: list[list[Command]], before: Rows, data: st.DataObject
) -> None:
    state = empty_state()
    for number, course in before:  # rows from before there were stamps
        state.students[number].pairs[course] = Pair(enrolled=True, stamp=StudentState().replaced)
    begin = data.draw(st.integers(0, len(batches)))
    copy: dict[int, StudentState] = {}
    older: list[Event] = []
    later: list[Event] = []
    for number, batch in enumerate(batches):
        if number == begin:
            copy = deepcopy(state.students)
        state, published = apply(state, batch, NOW + timedelta(seconds=number))
        (older if number < begin else later).extend(published)
    if begin == len(batches):
        copy = deepcopy(state.students)
    some = data.draw(st.lists(st.sampled_from(older), unique_by=lambda it: it.id)) if older else []
    for event in data.draw(st.permutations([*some, *later])):
        follow(copy, event)
    assert rows_of(copy) == rows_of(state.students)


@given(sent=commands(), data=st.data())
def test_the_copy_in_sqlite_follows_the_same_rule(sent: list[Command], data: st.DataObject) -> None:
    state, events = apply(empty_state(), sent)
    entries = [Entry("1-1", event.to_json(), event) for event in data.draw(st.permutations(events))]
    with closing(example.open_copy(":memory:")) as copy:
        for entry in [*entries, *entries[:3]]:
            example.take(copy, [entry])
        assert set(copy.execute("SELECT student_id, course_id FROM enrollments")) == rows_of(state.students)


def test_a_rejected_command_decides_nothing() -> None:
    _, [event] = apply(empty_state(), [parse_single(Kind.ENROLL, ONE, [1, [10, 99]], {})])
    assert event.type == "enrollment.rejected.v1"
    assert list(decisions(event)) == []


def test_what_a_replace_took_is_not_brought_back_by_an_older_event_that_comes_later() -> None:
    older = Enroll(command_id=ONE, student_id=1, course_ids=(10, 11), issued_at=NOW - timedelta(hours=1))
    state, [enrolled] = apply(empty_state(), [older])
    _, [replaced] = apply(state, [Replace(command_id=TWO, student_id=1, course_ids=(11,), issued_at=NOW)])
    copy: dict[int, StudentState] = {}
    assert [(it.course_id, it.enrolled) for it in follow(copy, replaced)] == [(10, False), (11, True)]
    assert follow(copy, enrolled) == []
    assert rows_of(copy) == {(1, 11)}


def test_a_copy_that_began_after_a_replace_knows_its_mark() -> None:
    older = Enroll(command_id=ONE, student_id=1, course_ids=(10,), issued_at=NOW - timedelta(hours=1))
    state, [enrolled] = apply(empty_state(), [older])
    state, _ = apply(state, [Replace(command_id=TWO, student_id=1, course_ids=(), issued_at=NOW)])
    copy = deepcopy(state.students)
    assert follow(copy, enrolled) == []
    assert rows_of(copy) == set()


def test_a_course_that_was_as_wanted_takes_the_newer_stamp() -> None:
    _, [event] = apply(empty_state(), [Unenroll(command_id=ONE, student_id=1, course_ids=(10,), issued_at=NOW)])
    assert event.data.unchanged == (10,)
    [decision] = decisions(event)
    assert (decision.enrolled, decision.stamp) == (False, Stamp(NOW, ONE))


_stamps = st.builds(Stamp, st.datetimes(timezones=st.just(UTC)), st.uuids())


@given(_stamps, _stamps)
def test_a_stamp_as_text_sorts_like_the_stamp(one: Stamp, two: Stamp) -> None:
    assert (sortable(one) < sortable(two)) is (one < two)
    assert (sortable(one) == sortable(two)) is (one == two)
