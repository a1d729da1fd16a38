"""What producers say: a seeded mix of good, late, repeated, reused, unknown and invalid commands."""

import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

KILLS = "kills-whoever-reads-it"  # in a message: what a deadly worker dies of
STUDENTS: Final = range(1, 9)
COURSES: Final = range(1, 13)
NOBODY: Final = 999_001  # ids that the catalog does not have
NOTHING: Final = 999_002

TASKS: Final = {kind: f"enrollment.{kind}.v1" for kind in ("enroll", "unenroll", "replace")}
APPLY: Final = "enrollment.apply.v1"
RELAY: Final = "enrollment.relay.v1"

APPLIED: Final = "applied"
INVALID: Final = "invalid_command"


@dataclass(frozen=True)
class SentCommand:
    """One command as it was said, and the code it must end with: `applied`, or that of its rejection."""

    command_id: str
    kind: str
    fields: dict[str, Any]
    ends: str = APPLIED


@dataclass(frozen=True)
class Message:
    """One Celery message. `marker` is a word in it by which its dead letter is known, where it has no usable id."""

    task: str
    task_id: str
    kwargs: dict[str, Any]
    said: tuple[SentCommand, ...] = ()
    markers: tuple[str, ...] = ()
    args: tuple[Any, ...] = ()

    @property
    def queue(self) -> str:
        return "enrollment.bulk" if self.task == APPLY else "enrollment"


@dataclass
class Generator:
    """An endless, repeatable stream of messages; what it made before may come again."""

    rng: random.Random
    most_in_one: int = 20  # commands of an `apply` message
    _before: list[Message] = field(default_factory=list)
    _start: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __iter__(self) -> Iterator[Message]:
        while True:
            yield self.message()

    def message(self) -> Message:
        chance = self.rng.random()
        if self._before and chance < 0.06:
            return self.rng.choice(self._before)
        if self._before and chance < 0.08:
            made = self._reuse(self.rng.choice(self._before))
        elif chance < 0.18:
            made = self._apply()
        elif chance < 0.19:
            return self._without_id()
        else:
            made = single(self._said(), positional=self.rng.random() < 0.2)
        self._before.append(made)
        if len(self._before) > 400:
            del self._before[: 200 + self.rng.randrange(100)]
        return made

    def good(self) -> Message:
        """Return a single command that is valid and stamped."""
        return single(self._valid(stamped=True))

    def _said(self) -> SentCommand:
        sorts: list[tuple[Callable[[], SentCommand], int]] = [
            (lambda: self._valid(stamped=True), 80),
            (lambda: self._valid(stamped=False), 8),
            (self._unknown_student, 3),
            (self._unknown_courses, 3),
            (self._from_the_future, 2),
            (self._invalid, 4),
        ]
        (make,) = self.rng.choices([sort for sort, _ in sorts], [weight for _, weight in sorts])
        return make()

    def _valid(self, *, stamped: bool) -> SentCommand:
        kind = self.rng.choice(["enroll", "enroll", "unenroll", "replace"])
        least = 0 if kind == "replace" else 1
        courses = self.rng.choices(COURSES, k=self.rng.randint(least, 4))  # one may be named twice
        fields: dict[str, Any] = {"student_id": self.rng.choice(STUDENTS), "course_ids": courses}
        if stamped:
            fields["issued_at"] = self._time()
        if self.rng.random() < 0.5:
            fields["source"] = self.rng.choice(["portal", "sis/nightly", "batch:7"])
        return SentCommand(self._id(), kind, fields)

    def _time(self) -> str:
        """Return a time of the last hour: mostly late, often exactly that of another command."""
        ago = timedelta(seconds=self.rng.randrange(3600), milliseconds=self.rng.choice([0, 0, 250, 999]))
        moment = self._start - ago
        return moment.isoformat() if self.rng.random() < 0.5 else moment.isoformat().replace("+00:00", "Z")

    def _unknown_student(self) -> SentCommand:
        said = self._valid(stamped=True)
        return SentCommand(said.command_id, said.kind, {**said.fields, "student_id": NOBODY}, "unknown_student")

    def _unknown_courses(self) -> SentCommand:
        said = self._valid(stamped=True)
        courses = [*said.fields["course_ids"], NOTHING]
        return SentCommand(said.command_id, said.kind, {**said.fields, "course_ids": courses}, "unknown_courses")

    def _from_the_future(self) -> SentCommand:
        """Issue it an hour ahead: a worker whose own clock is two hours ahead must refuse it as the others do."""
        said = self._valid(stamped=True)
        ahead = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        return SentCommand(said.command_id, said.kind, {**said.fields, "issued_at": ahead}, "issued_in_future")

    def _invalid(self) -> SentCommand:
        said = self._valid(stamped=True)
        without = {name: value for name, value in said.fields.items() if name != "student_id"}
        fields = self.rng.choice(
            [
                without,
                {**said.fields, "student_id": True},
                {**said.fields, "student_id": str(said.fields["student_id"])},
                {**said.fields, "student_id": 2**63},
                {**said.fields, "course_ids": 7},
                {**said.fields, "course_ids": [1.0]},
                {**said.fields, "course_id": 1},
                {**said.fields, "issued_at": "2026-01-31 09:30"},
                {**said.fields, "source": "a b"},
            ]
        )
        return SentCommand(said.command_id, said.kind, fields, INVALID)

    def _reuse(self, before: Message) -> Message:
        """Say something else under an id that was said before."""
        other = self._valid(stamped=True)
        command_id = self.rng.choice(before.said).command_id
        return single(SentCommand(command_id, other.kind, {**other.fields, "source": f"reuse/{self._id()}"}))

    def _apply(self) -> Message:
        said = tuple(self._said() for _ in range(self.rng.randint(1, self.most_in_one)))
        items = [{"command_id": each.command_id, "command": each.kind, **each.fields} for each in said]
        markers: tuple[str, ...] = ()
        if self.rng.random() < 0.1:
            markers = (f"marker-{self._id()}",)
            items.append({"command": "enroll", "student_id": 1, "course_ids": [1], "source": markers[0]})
        return Message(APPLY, self._id(), {"commands": items}, said, markers)

    def _without_id(self) -> Message:
        marker = f"marker-{self._id()}"
        fields = {"student_id": 1, "course_ids": [1], "source": marker}
        return Message(TASKS["enroll"], f"no-uuid-{marker}", fields, (), (marker,))

    def _id(self) -> str:
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))


def single(said: SentCommand, *, positional: bool = False) -> Message:
    """Return the message of one command."""
    fields = dict(said.fields)
    args: tuple[Any, ...] = ()
    if positional and {"student_id", "course_ids"} <= fields.keys():
        args = (fields.pop("student_id"), fields.pop("course_ids"))
    return Message(TASKS[said.kind], said.command_id, fields, (said,), (), args)
