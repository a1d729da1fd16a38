"""The rules: what a list of commands does to the courses of their students. Pure: no I/O, no clock.

Each pair (student, course) belongs to the command with the highest stamp, and a replace decides every pair of its
student up to its own stamp. So the end is the same for every order, every repetition and every split into batches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple
from uuid import UUID

from enrollment import errors
from enrollment.commands import Command, Kind, Replace, Unenroll, Withdraw, format_time
from enrollment.errors import Rejection
from enrollment.parsing import Invalid, Request, content_hash, hash_without_times
from enrollment.state import Pair, Stamp, State, StudentState
from enrollment.waiting import AT_ONCE, Policy, Waiting

MAX_AHEAD: Final = timedelta(minutes=5)  # how far a producer's clock may be ahead of the worker's
Outcome = Literal["applied", "rejected", "waiting", "withdrawn"]
WITHDRAWN: Final = b"-"  # what stands for the content of a command that was withdrawn before it came
STEP: Final = timedelta(microseconds=1)  # between commands without a stamp: the resolution of PostgreSQL's times


class Effects(NamedTuple):
    """Course ids by what the command did, each ascending. Together they are the command's, and what a replace took."""

    enrolled: tuple[int, ...] = ()
    unenrolled: tuple[int, ...] = ()
    unchanged: tuple[int, ...] = ()
    superseded: tuple[int, ...] = ()


class Record(NamedTuple):
    """One processed command, as `commands` keeps it: what was asked, and what came of it."""

    command_id: UUID
    command: Kind | None
    student_id: int | None
    course_ids: tuple[int, ...] | None
    issued_at: datetime | None
    source: str | None
    outcome: Outcome
    effects: Effects
    errors: tuple[Rejection, ...]
    processed_at: datetime
    content_hash: bytes
    waiting: Waiting | None = None  # of one that waits
    target: UUID | None = None  # of one that withdraws another
    trace: str | None = None  # enrollment.traces; it decides nothing


class Repeat(NamedTuple):
    """A command that was processed before: nothing is to be done, and nothing to be told."""

    command_id: UUID


@dataclass(frozen=True, slots=True)
class Reused:
    """Another command under an id that is taken: the first stands."""

    request: Request | Withdraw


Verdict = Record | Repeat | Reused


@dataclass(slots=True)
class Changes:
    """The rows to write, by student: for each pair touched, what it is in the end, never the way there.

    By student, because neighbours share pages: it takes PostgreSQL an eighth off the time of the largest inserts.
    """

    added: list[tuple[int, int, Stamp]] = field(default_factory=list)  # student_courses: insert, nothing was there
    enrolled: list[tuple[int, int, Stamp]] = field(default_factory=list)  # student_courses: insert, a tombstone was
    restamped: list[tuple[int, int, Stamp]] = field(default_factory=list)  # student_courses: update
    unenrolled: list[tuple[int, int]] = field(default_factory=list)  # student_courses: delete
    tombstones_added: list[tuple[int, int, Stamp]] = field(default_factory=list)  # tombstones: insert or update
    tombstones_removed: list[tuple[int, int]] = field(default_factory=list)  # tombstones: delete
    replaced: list[tuple[int, Stamp]] = field(default_factory=list)  # replace_marks: insert or update


@dataclass(frozen=True, slots=True)
class Folded:
    """What the fold returns: a verdict for each request, in order, and the rows that follow from them."""

    verdicts: list[Verdict]
    changes: Changes
    students: dict[int, StudentState]  # the students touched, as they are afterwards


def times_from(start: datetime, count: int) -> list[datetime]:
    """Return strictly rising times: of commands without a stamp, the order of arrival decides among themselves."""
    return [start + number * STEP for number in range(count)]


def fold(
    state: State,
    requests: Sequence[Request],
    now: datetime,
    *,
    first_seen: Sequence[datetime] | None = None,
    policy: Policy = AT_ONCE,
) -> Folded:
    """Decide `requests`, in order of arrival, over `state`, which stays as it is; what has to wait changes nothing.

    `now` is the worker's clock. `first_seen` has a time for each request, when a worker saw it for the first time
    (default: `now`, and strictly rising): the stamp of a command that has none, and the limit for stamps that lie
    ahead. So a command that was put off is decided as it would have been then.
    """
    students: dict[int, StudentState] = {}
    processed = dict(state.processed)
    verdicts: list[Verdict] = []
    for request, seen_at in zip(requests, first_seen or times_from(now, len(requests)), strict=True):
        content = content_hash(request)
        seen = processed.get(request.command_id)
        if seen is not None:
            verdicts.append(Repeat(request.command_id) if _is_same(request, content, seen) else Reused(request))
            continue
        processed[request.command_id] = content
        stamp = Stamp(request.effective_at or request.issued_at or seen_at, request.command_id)
        rejections = _rejections(state, request, seen_at, policy)
        late = bool(rejections) or stamp.issued_at > now
        waiting = policy.waiting(request, rejections, seen_at, now, state.promised) if late else None
        if waiting is None and not rejections and state.closed:
            rejections = _closed(state, students, request, stamp)
        effects = Effects()
        if waiting is None and not rejections and not isinstance(request, Invalid):
            student = students.get(request.student_id)
            if student is None:
                before = state.students[request.student_id]
                student = students[request.student_id] = StudentState(dict(before.pairs), before.replaced)
            effects = _apply(student, request, stamp)
        verdicts.append(_record(request, stamp, effects, rejections, now=now, content=content, waiting=waiting))
    return Folded(verdicts, _changes(state.students, students), students)


def needed(requests: Sequence[Request]) -> tuple[set[int], set[tuple[int, int]]]:
    """Return the students all of whose pairs must be known to decide these requests, and the pairs of the others.

    Only a replace looks beyond the courses that it names. So a batch costs what it says, not what its students have.
    """
    commands = [request for request in requests if not isinstance(request, Invalid)]
    whole = {command.student_id for command in commands if isinstance(command, Replace)}
    rest = [command for command in commands if command.student_id not in whole]
    return whole, {(command.student_id, course_id) for command in rest for course_id in command.course_ids}


def _is_same(request: Request, content: bytes, seen: bytes) -> bool:
    if seen in (content, WITHDRAWN):
        return True
    if isinstance(request, Invalid):
        return False
    return seen == hash_without_times(request.kind, request.student_id, request.course_ids, request.source)


def _rejections(state: State, request: Request, seen_at: datetime, policy: Policy) -> tuple[Rejection, ...]:
    if isinstance(request, Invalid):
        return (request.rejection,)
    found: list[Rejection] = []
    if request.issued_at is not None and request.issued_at > seen_at + MAX_AHEAD:
        found.append(errors.issued_in_future(format_time(request.issued_at), MAX_AHEAD // timedelta(minutes=1)))
    if policy.longest is not None and request.command_id not in state.told:
        found += policy.rejections(request, seen_at)
    time = request.effective_at or request.issued_at or seen_at
    if time < state.oldest:
        found.append(errors.too_old(format_time(time), format_time(state.oldest)))
    if request.student_id not in state.students:
        found.append(errors.unknown_student(request.student_id))
    if not state.courses.issuperset(request.course_ids):
        found.append(errors.unknown_courses(set(request.course_ids) - state.courses))
    return tuple(found)


def _closed(
    state: State, students: Mapping[int, StudentState], request: Request, stamp: Stamp
) -> tuple[Rejection, ...]:
    """Reject what would newly enroll a student in a closed course; who is enrolled may be named."""
    if isinstance(request, Invalid | Unenroll):
        return ()
    student = students.get(request.student_id) or state.students[request.student_id]
    new = {
        course_id
        for course_id in state.closed.intersection(request.course_ids)
        if not student.enrolled_in(course_id) and student.decided(course_id) < stamp
    }
    return (errors.course_closed(new),) if new else ()


def _apply(student: StudentState, command: Command, stamp: Stamp) -> Effects:
    enroll = not isinstance(command, Unenroll)
    changed: list[int] = []
    unchanged: list[int] = []
    superseded: list[int] = []
    belongs = Pair(enroll, stamp)
    for course_id in sorted(command.course_ids):
        if student.decided(course_id) > stamp:
            superseded.append(course_id)
            continue
        (unchanged if student.enrolled_in(course_id) is enroll else changed).append(course_id)
        student.pairs[course_id] = belongs
    if isinstance(command, Replace):
        removed = _replace(student, set(command.course_ids), stamp)
        return Effects(tuple(changed), removed, tuple(unchanged), tuple(superseded))
    if enroll:
        return Effects(tuple(changed), (), tuple(unchanged), tuple(superseded))
    return Effects((), tuple(changed), tuple(unchanged), tuple(superseded))


def _replace(student: StudentState, wanted: set[int], stamp: Stamp) -> tuple[int, ...]:
    """Take away what the replace does not name; return the courses that were lost.

    The mark says all there is to say of these pairs, so their rows and tombstones go.
    """
    if stamp < student.replaced:
        return ()
    student.replaced = stamp
    older = {course_id: pair for course_id, pair in student.pairs.items() if pair.stamp < stamp}
    for course_id in older.keys() - wanted:
        del student.pairs[course_id]
    return tuple(sorted(course_id for course_id, pair in older.items() if pair.enrolled and course_id not in wanted))


def _record(
    request: Request,
    stamp: Stamp,
    effects: Effects,
    errors: tuple[Rejection, ...],
    *,
    now: datetime,
    content: bytes,
    waiting: Waiting | None,
) -> Record:
    valid = not isinstance(request, Invalid)
    return Record(
        command_id=request.command_id,
        command=request.kind if not isinstance(request, Invalid) else request.command,
        student_id=request.student_id,
        course_ids=request.course_ids,
        issued_at=stamp.issued_at if valid else request.issued_at,
        source=request.source,
        outcome="waiting" if waiting else "rejected" if errors else "applied",
        effects=effects,
        errors=() if waiting else errors,
        processed_at=now,
        content_hash=content,
        waiting=waiting,
    )


def _changes(before: Mapping[int, StudentState], after: Mapping[int, StudentState]) -> Changes:
    changes = Changes()
    for student_id in sorted(after):
        student, old = after[student_id], before[student_id]
        for course_id, pair in student.pairs.items():
            was = old.pairs.get(course_id)
            if pair is was:
                continue
            if pair.enrolled:
                rows = changes.added if was is None else changes.restamped if was.enrolled else changes.enrolled
                rows.append((student_id, course_id, pair.stamp))
            else:
                changes.tombstones_added.append((student_id, course_id, pair.stamp))
            if was is not None and was.enrolled is not pair.enrolled:
                (changes.unenrolled if was.enrolled else changes.tombstones_removed).append((student_id, course_id))
        for course_id, was in old.pairs.items():
            if course_id not in student.pairs:
                (changes.unenrolled if was.enrolled else changes.tombstones_removed).append((student_id, course_id))
        if student.replaced is not old.replaced:
            changes.replaced.append((student_id, student.replaced))
    return changes
