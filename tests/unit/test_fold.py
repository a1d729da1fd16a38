from collections.abc import Sequence
from copy import deepcopy
from datetime import timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from enrollment.commands import Command, Enroll, Kind, Replace, Unenroll
from enrollment.errors import ErrorCode
from enrollment.fold import Changes, Folded, Record, Repeat, Reused, fold, needed
from enrollment.parsing import Invalid, Request, parse_single
from enrollment.state import Pair, Stamp, State, StudentState
from tests.unit.strategies import COURSES, NOW, STUDENTS, UNKNOWN_COURSE, UNKNOWN_STUDENT, commands, empty_state

ONE, TWO, THREE = UUID(int=1), UUID(int=2), UUID(int=3)


def after(state: State, folded: Folded) -> State:
    """Give the state as the next batch finds it: from the rows written, the way the database would."""
    students = deepcopy(state.students)
    changes = folded.changes
    for student, course in changes.unenrolled:
        assert students[student].pairs.pop(course).enrolled
    for student, course in changes.tombstones_removed:
        assert not students[student].pairs.pop(course).enrolled
    for student, course, _ in changes.added:
        assert course not in students[student].pairs
    for student, course, _ in changes.restamped:
        assert students[student].pairs[course].enrolled
    written = (*changes.added, *changes.enrolled, *changes.restamped)
    for enrolled, rows in ((True, written), (False, changes.tombstones_added)):
        for student, course, stamp in rows:
            students[student].pairs[course] = Pair(enrolled, stamp)
    for student, stamp in changes.replaced:
        students[student].replaced = stamp
    processed = {v.command_id: v.content_hash for v in folded.verdicts if isinstance(v, Record)}
    return State(students, state.courses, state.processed | processed)


def run(*batches: Sequence[Request]) -> State:
    state = empty_state()
    for batch in batches:
        state = after(state, fold(state, batch, NOW))
    return state


def enrolled(state: State) -> set[tuple[int, int]]:
    return {(s, c) for s, student in state.students.items() for c, pair in student.pairs.items() if pair.enrolled}


def oracle(of: Sequence[Command]) -> set[tuple[int, int]]:
    rows: set[tuple[int, int]] = set()
    for c in sorted(of, key=lambda c: (c.issued_at, c.command_id)):
        if c.student_id in STUDENTS and set(c.course_ids) <= set(COURSES):
            rows -= {r for r in rows if r[0] == c.student_id and (c.kind == "replace" or r[1] in c.course_ids)}
            rows |= {(c.student_id, course) for course in c.course_ids if c.kind != "unenroll"}
    return rows


@given(commands(), commands())
def test_pairs_that_are_not_needed_change_nothing(before: list[Command], of: list[Command]) -> None:
    state = run(before)
    whole, pairs = needed(of)
    part = deepcopy(state)
    for student_id, student in part.students.items():
        if student_id not in whole:
            student.pairs = {c: pair for c, pair in student.pairs.items() if (student_id, c) in pairs}
    known, all_known = fold(part, of, NOW), fold(state, of, NOW)
    assert (known.verdicts, known.changes) == (all_known.verdicts, all_known.changes)


@given(commands())
def test_the_end_is_what_sorting_by_stamp_and_applying_gives(of: list[Command]) -> None:
    assert enrolled(run(of)) == oracle(of)


@given(commands(), st.data())
def test_every_order_and_every_repetition_ends_in_the_same_state(of: list[Command], data: st.DataObject) -> None:
    repeated = of + data.draw(st.lists(st.sampled_from(of), max_size=5)) if of else of
    shuffled = data.draw(st.permutations(repeated))
    assert run(shuffled) == run(of)


@given(commands(), st.data())
def test_every_split_into_batches_ends_in_the_same_state(of: list[Command], data: st.DataObject) -> None:
    at = sorted(data.draw(st.sets(st.integers(0, len(of)), max_size=4)))
    batches = [of[i:j] for i, j in zip([0, *at], [*at, len(of)], strict=True)]
    assert run(*batches) == run(of)


@given(commands(), st.data())
def test_the_rows_written_are_the_state_it_computed(of: list[Command], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(of)))
    before = run(of[:cut])
    folded = fold(before, of[cut:], NOW)
    assert after(before, folded).students == before.students | folded.students


@given(commands())
def test_the_state_it_is_given_stays_as_it_is(of: list[Command]) -> None:
    state = run(of[: len(of) // 2])
    copy = deepcopy(state)
    fold(state, of, NOW)
    assert state == copy


@given(commands())
def test_effects_partition_the_courses(of: list[Command]) -> None:
    for command, verdict in zip(of, fold(empty_state(), of, NOW).verdicts, strict=True):
        assert isinstance(verdict, Record)
        if verdict.outcome == "rejected":
            continue
        e = verdict.effects
        every = [*e.enrolled, *e.unenrolled, *e.unchanged, *e.superseded]
        assert len(every) == len(set(every))
        removed = set(e.unenrolled) if command.kind is Kind.REPLACE else set()
        assert set(every) - removed == set(command.course_ids)
        assert not removed & set(command.course_ids)
        assert all(list(ids) == sorted(ids) for ids in e)


@given(commands())
def test_the_effects_tell_every_change_of_the_rows(of: list[Command]) -> None:
    """So that a reader who applies the events in the order they were decided has the same rows."""
    rows: set[tuple[int, int]] = set()
    for verdict in fold(empty_state(), of, NOW).verdicts:
        assert isinstance(verdict, Record)
        gone = {(verdict.student_id or 0, c) for c in verdict.effects.unenrolled}
        new = {(verdict.student_id or 0, c) for c in verdict.effects.enrolled}
        assert gone <= rows
        assert not new & rows
        rows = (rows - gone) | new
    assert rows == enrolled(run(of))


@given(commands())
def test_a_rejected_command_changes_nothing(of: list[Command]) -> None:
    rejected = [c for c in of if c.student_id == UNKNOWN_STUDENT or UNKNOWN_COURSE in c.course_ids]
    folded = fold(empty_state(), rejected, NOW)
    assert folded.changes == Changes()
    assert all(isinstance(v, Record) and v.outcome == "rejected" and not any(v.effects) for v in folded.verdicts)


def test_a_late_older_command_is_superseded() -> None:
    leave = Unenroll(command_id=ONE, student_id=1, course_ids=(10,), issued_at=NOW)
    join = Enroll(command_id=TWO, student_id=1, course_ids=(10, 11), issued_at=NOW - timedelta(hours=1))
    _, late = fold(empty_state(), [leave, join], NOW).verdicts
    assert isinstance(late, Record)
    assert late.outcome == "applied"
    assert (late.effects.superseded, late.effects.enrolled) == ((10,), (11,))


def test_a_late_older_replace_leaves_newer_pairs_alone() -> None:
    join = Enroll(command_id=ONE, student_id=1, course_ids=(10,), issued_at=NOW)
    replace = Replace(command_id=TWO, student_id=1, course_ids=(11,), issued_at=NOW - timedelta(hours=1))
    assert enrolled(run([join], [replace])) == {(1, 10), (1, 11)}


def test_an_enroll_older_than_the_latest_replace_is_superseded_even_for_a_course_never_named() -> None:
    replace = Replace(command_id=ONE, student_id=1, course_ids=(), issued_at=NOW)
    join = Enroll(command_id=TWO, student_id=1, course_ids=(13,), issued_at=NOW - timedelta(seconds=1))
    assert enrolled(run([replace], [join])) == set()


def test_equal_times_are_ordered_by_command_id() -> None:
    join = Enroll(command_id=TWO, student_id=1, course_ids=(10,), issued_at=NOW)
    leave = Unenroll(command_id=ONE, student_id=1, course_ids=(10,), issued_at=NOW)
    assert enrolled(run([join, leave])) == enrolled(run([leave, join])) == {(1, 10)}


def test_commands_without_a_stamp_count_in_order_of_arrival() -> None:
    join = Enroll(command_id=THREE, student_id=1, course_ids=(10,))
    leave = Unenroll(command_id=TWO, student_id=1, course_ids=(10,))
    again = Enroll(command_id=ONE, student_id=1, course_ids=(10,))
    assert enrolled(run([join, leave])) == set()
    assert enrolled(run([join, leave, again])) == {(1, 10)}


def test_a_row_older_than_the_worker_gives_way_to_any_command() -> None:
    state = empty_state()
    state.students[1] = StudentState({10: Pair(enrolled=True, stamp=StudentState().replaced)})
    leave = Unenroll(command_id=ONE, student_id=1, course_ids=(10,), issued_at=NOW - timedelta(days=9999))
    assert fold(state, [leave], NOW).changes.unenrolled == [(1, 10)]


def test_the_same_id_with_the_same_content_is_a_repeat_and_with_other_content_is_refused() -> None:
    first = Enroll(command_id=ONE, student_id=1, course_ids=(10, 11), issued_at=NOW)
    same = Enroll(command_id=ONE, student_id=1, course_ids=(11, 10), issued_at=NOW)
    other = Enroll(command_id=ONE, student_id=1, course_ids=(12,), issued_at=NOW)
    for verdicts in (
        fold(empty_state(), [first, same, other], NOW).verdicts[1:],
        fold(run([first]), [same, other], NOW).verdicts,
    ):
        assert verdicts == [Repeat(ONE), Reused(other)]


def test_an_invalid_command_takes_its_id_too() -> None:
    invalid = parse_single(Kind.ENROLL, ONE, [], {"student_id": 1})
    valid = Enroll(command_id=ONE, student_id=1, course_ids=(10,))
    assert isinstance(invalid, Invalid)
    record, repeat, reused = fold(empty_state(), [invalid, invalid, valid], NOW).verdicts
    assert isinstance(record, Record)
    assert (record.outcome, repeat, reused) == ("rejected", Repeat(ONE), Reused(valid))


def test_every_reason_for_a_rejection_is_named_with_every_id() -> None:
    future = NOW + timedelta(minutes=5, microseconds=1)
    command = Enroll(command_id=ONE, student_id=UNKNOWN_STUDENT, course_ids=(99, 10, 98), issued_at=future)
    [verdict] = fold(empty_state(), [command], NOW).verdicts
    assert isinstance(verdict, Record)
    assert [(e.code, e.ids) for e in verdict.errors] == [
        (ErrorCode.ISSUED_IN_FUTURE, ()),
        (ErrorCode.UNKNOWN_STUDENT, (UNKNOWN_STUDENT,)),
        (ErrorCode.UNKNOWN_COURSES, (98, 99)),
    ]


def test_five_minutes_ahead_is_not_yet_too_far() -> None:
    command = Enroll(command_id=ONE, student_id=1, course_ids=(10,), issued_at=NOW + timedelta(minutes=5))
    assert enrolled(run([command])) == {(1, 10)}


def test_the_stamp_of_a_pair_is_that_of_the_command_it_belongs_to_whatever_the_order() -> None:
    first = Enroll(command_id=ONE, student_id=1, course_ids=(10,), issued_at=NOW - timedelta(hours=1))
    second = Enroll(command_id=TWO, student_id=1, course_ids=(10,), issued_at=NOW)
    assert run([first, second]).students[1].pairs[10].stamp == Stamp(NOW, TWO)
    assert run([second, first]).students[1].pairs[10].stamp == Stamp(NOW, TWO)
