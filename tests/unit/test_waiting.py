"""Commands that wait: the end is the same as if all had been known from the start, and as valid time says."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enrollment.commands import Command, Enroll, Unenroll, as_fields
from enrollment.errors import ErrorCode
from enrollment.fold import WITHDRAWN, Record, Repeat, fold
from enrollment.parsing import Invalid, Request, content_hash, parse_many, parse_single
from enrollment.state import State, StudentState
from enrollment.waiting import Policy
from tests.unit.strategies import COURSES, NOW, STUDENTS, UNKNOWN_COURSE, UNKNOWN_STUDENT, commands, empty_state
from tests.unit.test_fold import after, enrolled

HOUR = timedelta(hours=1)
ID = UUID(int=7)


def verdict(request: Request, now: datetime = NOW, policy: Policy = Policy(), **state: object) -> Record:  # noqa: B008
    before = empty_state()
    for name, value in state.items():
        setattr(before, name, value)
    [found] = fold(before, [request], now, first_seen=[NOW], policy=policy).verdicts
    assert isinstance(found, Record)
    return found


def enroll(*courses: int, student: int = 1, **fields: object) -> Command:
    return Enroll.model_validate(
        {"command_id": ID, "student_id": student, "course_ids": courses or (10,), **fields}, strict=False
    )


class World:
    """Workers, the catalog and a clock: commands that wait are kept, and decided by the same fold later."""

    def __init__(self) -> None:
        self.state = State(students={1: StudentState()}, courses={10})
        self.now = NOW
        self.kept: dict[UUID, tuple[Command, datetime, datetime | None]] = {}
        self.told: list[tuple[UUID, str]] = []

    def decide(self, units: Sequence[tuple[Command, datetime]], promised: dict[UUID, datetime] | None = None) -> None:
        self.state.promised = promised or {}
        folded = fold(self.state, [c for c, _ in units], self.now, first_seen=[t for _, t in units])
        state = after(self.state, folded)
        for (command, seen), found in zip(units, folded.verdicts, strict=True):
            if not isinstance(found, Record):
                continue
            if found.waiting is not None:
                catalog = found.waiting.waiting_for[0].code != "effective_at"
                self.kept[command.command_id] = (command, seen, found.waiting.until if catalog else None)
            if (found.command_id, found.outcome) not in self.told:
                self.told.append((found.command_id, found.outcome))
        self.state = state

    def release(self, ids: Sequence[UUID]) -> None:
        taken = [(id_, *self.kept.pop(id_)) for id_ in ids if id_ in self.kept]
        for id_, *_ in taken:
            del self.state.processed[id_]
        promised = {id_: until for id_, _, _, until in taken if until is not None}
        self.decide([(command, seen) for _, command, seen, _ in taken], promised)

    def load(self, students: Sequence[int], courses: Sequence[int]) -> None:
        self.state.courses |= set(courses)
        for student in students:
            self.state.students.setdefault(student, StudentState())


def played(of: list[Command], data: st.DataObject) -> World:
    """Send commands in some order and some batches, with repeats, while the catalog comes and some are released."""
    world = World()
    rest = data.draw(st.permutations(of + data.draw(st.lists(st.sampled_from(of), max_size=3)) if of else of))
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        batch, rest = rest[:size], rest[size:]
        world.decide([(command, world.now) for command in batch])
        world.load(data.draw(st.lists(st.sampled_from(STUDENTS), max_size=2)), ())
        world.load((), data.draw(st.lists(st.sampled_from(COURSES), max_size=2)))
        world.release(data.draw(st.permutations(sorted(world.kept))))
        world.now += data.draw(st.sampled_from([timedelta(0), HOUR, 2 * HOUR]))
    world.load(STUDENTS, COURSES)
    world.release(data.draw(st.permutations(sorted(world.kept))))
    world.now += 1000 * HOUR
    world.release(sorted(world.kept))
    assert not world.kept
    return world


def told_once(world: World) -> None:
    finals = [id_ for id_, outcome in world.told if outcome != "waiting"]
    waits = [id_ for id_, outcome in world.told if outcome == "waiting"]
    assert len(finals) == len(set(finals))
    assert len(waits) == len(set(waits))
    assert set(waits) <= set(finals)


@given(commands(), st.data())
def test_whenever_the_catalog_comes_the_end_is_as_if_it_had_been_there(of: list[Command], data: st.DataObject) -> None:
    patient = [command.model_copy(update={"wait_until": NOW + 500 * HOUR}) for command in of]
    world = played(patient, data)
    all_known = empty_state()
    assert enrolled(world.state) == enrolled(after(all_known, fold(all_known, patient, world.now)))
    told_once(world)


@given(commands(), st.data())
def test_what_takes_effect_later_is_ordered_by_when_it_does(of: list[Command], data: st.DataObject) -> None:
    hours = st.integers(-3, 6)
    scheduled = [
        command.model_copy(update={"effective_at": NOW + data.draw(hours) * HOUR, "wait_until": NOW + 500 * HOUR})
        for command in of
    ]
    world = played(scheduled, data)
    rows: set[tuple[int, int]] = set()
    for c in sorted(scheduled, key=lambda c: (c.effective_at, c.command_id)):
        if c.student_id in STUDENTS and set(c.course_ids) <= set(COURSES):
            rows -= {r for r in rows if r[0] == c.student_id and (c.kind == "replace" or r[1] in c.course_ids)}
            rows |= {(c.student_id, course) for course in c.course_ids if c.kind != "unenroll"}
    assert enrolled(world.state) == rows
    told_once(world)


def test_a_command_waits_for_all_that_is_unknown_and_says_so() -> None:
    found = verdict(enroll(10, 99, 98, student=UNKNOWN_STUDENT, wait_until=NOW + HOUR))
    assert found.outcome == "waiting"
    assert not found.errors
    assert found.waiting is not None
    assert [(w.code, w.ids) for w in found.waiting.waiting_for] == [
        ("unknown_student", (9,)),
        ("unknown_courses", (98, 99)),
    ]
    assert found.waiting.until == NOW + HOUR


def test_when_its_time_is_over_it_is_rejected_as_ever() -> None:
    found = verdict(enroll(99, wait_until=NOW + HOUR), now=NOW + HOUR)
    assert [error.code for error in found.errors] == [ErrorCode.UNKNOWN_COURSES]


def test_its_time_comes_first_and_then_the_wait_for_the_catalog() -> None:
    later = enroll(99, effective_at=NOW + HOUR, wait_until=NOW + 2 * HOUR)
    outcomes = [verdict(later, now=NOW + n * HOUR).outcome for n in (0, 1, 2)]
    assert outcomes == ["waiting", "waiting", "rejected"]
    assert verdict(later).issued_at == NOW + HOUR


def test_what_no_waiting_cures_is_told_at_once() -> None:
    ahead = enroll(issued_at=NOW + HOUR, effective_at=NOW + 2 * HOUR)
    assert [error.code for error in verdict(ahead).errors] == [ErrorCode.ISSUED_IN_FUTURE]


@pytest.mark.parametrize(("source", "seconds"), [("portal", 10), (None, 5), ("other", 5), ("never", 0)])
def test_a_deployment_is_patient_by_source(source: str | None, seconds: int) -> None:
    by_source = {"portal": timedelta(seconds=10), "never": timedelta(0)}
    found = verdict(enroll(UNKNOWN_COURSE, source=source), policy=Policy(timedelta(seconds=5), by_source))
    assert found.outcome == ("waiting" if seconds else "rejected")
    assert (found.waiting and found.waiting.until) == (NOW + timedelta(seconds=seconds) if seconds else None)


def test_what_was_promised_stands_when_the_deployment_becomes_less_patient() -> None:
    promised = {ID: NOW + HOUR}
    assert verdict(enroll(99), policy=Policy(timedelta(seconds=5)), promised=promised).outcome == "waiting"
    assert verdict(enroll(99, wait_until=NOW + HOUR), promised={ID: NOW}).outcome == "rejected"


def test_a_deployment_may_bound_how_far_ahead_a_command_takes_effect() -> None:
    day = timedelta(days=1)
    found = verdict(enroll(effective_at=NOW + 2 * day), policy=Policy(longest=day))
    assert [(error.code, error.fields) for error in found.errors] == [(ErrorCode.TOO_FAR_AHEAD, ("effective_at",))]
    assert verdict(enroll(effective_at=NOW + day), policy=Policy(longest=day)).outcome == "waiting"


def test_a_patience_beyond_all_time_is_for_ever() -> None:
    until = Policy(timedelta(days=999_999_999)).until(enroll(99), NOW)
    assert until is not None
    assert until.year == 9999


def test_what_was_withdrawn_before_it_came_is_nothing_new() -> None:
    state = empty_state()
    state.processed[ID] = WITHDRAWN
    assert fold(state, [enroll(10)], NOW).verdicts == [Repeat(ID)]


def test_the_eta_of_a_message_is_when_its_commands_take_effect_unless_they_say() -> None:
    said = {"student_id": 1, "course_ids": [10]}
    single = parse_single(Unenroll.kind, ID, [], said, NOW + HOUR)
    items = [{"command_id": str(ID), "command": "enroll", **said}]
    [own] = parse_many([], {"commands": [{**items[0], "effective_at": "2026-03-01T12:00:00Z"}]}, NOW + HOUR)
    [item] = parse_many([], {"commands": items}, NOW + HOUR)
    assert [r.effective_at for r in (single, item, own) if not isinstance(r, Invalid)] == [NOW + HOUR, NOW + HOUR, NOW]  # type: ignore[union-attr]


def test_an_invalid_command_is_kept_with_the_eta_of_its_message_as_text() -> None:
    invalid = parse_single(Unenroll.kind, ID, [1, []], {}, NOW + HOUR)
    assert isinstance(invalid, Invalid)
    assert json.loads(invalid.payload)["effective_at"] == "2026-03-01T13:00:00Z"


def test_a_closed_course_is_closed_for_a_command_whose_clock_is_a_little_ahead() -> None:
    ahead = enroll(10, issued_at=NOW + timedelta(minutes=1))
    assert [e.code for e in verdict(ahead, closed={10}).errors] == ["course_closed"]


def test_when_a_command_takes_effect_and_how_long_it_waits_is_part_of_what_it_says() -> None:
    variants = [enroll(), enroll(effective_at=NOW), enroll(wait_until=NOW), enroll(issued_at=NOW)]
    assert len(set(map(content_hash, variants))) == 4
    for command in variants:
        fields = {name: value for name, value in as_fields(command).items() if name not in ("command_id", "command")}
        assert parse_single(command.kind, ID, [], fields) == command
