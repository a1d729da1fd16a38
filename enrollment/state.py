"""What the fold has to know of what was decided before: by student and course, with the stamps."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, NamedTuple
from uuid import UUID


class Stamp(NamedTuple):
    """What orders commands: the time, and the id where times are equal."""

    issued_at: datetime
    command_id: UUID


BEFORE_ALL: Final = Stamp(datetime.min.replace(tzinfo=UTC), UUID(int=0))


class Pair(NamedTuple):
    """What is recorded of one course of one student: a row of `student_courses`, or a tombstone."""

    enrolled: bool
    stamp: Stamp


@dataclass(slots=True)
class StudentState:
    """What is recorded of one student: the pairs by course id, and the stamp of the latest replace."""

    pairs: dict[int, Pair] = field(default_factory=dict)
    replaced: Stamp = BEFORE_ALL

    def decided(self, course_id: int) -> Stamp:
        """Return the stamp of the command to which this pair belongs."""
        pair = self.pairs.get(course_id)
        return self.replaced if pair is None or pair.stamp < self.replaced else pair.stamp

    def enrolled_in(self, course_id: int) -> bool:
        """Tell whether the student is enrolled in this course."""
        pair = self.pairs.get(course_id)
        return pair is not None and pair.enrolled


@dataclass(slots=True)
class State:
    """What the fold must know: the students and courses named that exist, and the command ids already processed.

    Of the students' pairs, those that are `needed`; others change nothing. Commands with a stamp from before `oldest`
    may be forgotten: nobody could tell a repeat.
    """

    students: dict[int, StudentState] = field(default_factory=dict)
    courses: set[int] = field(default_factory=set)
    processed: dict[UUID, bytes] = field(default_factory=dict)  # command id: what its content is known by
    promised: dict[UUID, datetime] = field(default_factory=dict)  # of commands that waited: until when, at the longest
    told: AbstractSet[UUID] = frozenset()  # commands that waited: that they may was told, and stands
    oldest: datetime = BEFORE_ALL.issued_at
    closed: set[int] = field(default_factory=set)  # courses that take no more enrollments
