"""The commands that everything is measured with: each enrolls one student in two courses."""

import json
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID

STUDENTS: Final = 100_000
COURSES: Final = 1_000
COURSES_EACH: Final = 2


@dataclass(frozen=True, slots=True)
class Enroll:
    """One command."""

    command_id: str
    student_id: int
    course_ids: tuple[int, ...]

    @property
    def pairs(self) -> Iterator[tuple[int, int]]:
        """The rows it makes."""
        return ((self.student_id, course_id) for course_id in self.course_ids)

    def line(self) -> str:
        """Return it as a line of a file for `enrollment send`, which the peers read as well."""
        return json.dumps({"command": "enroll", **self.fields(), "command_id": self.command_id})

    def fields(self) -> dict[str, object]:
        """Return the arguments of its task."""
        return {"student_id": self.student_id, "course_ids": list(self.course_ids)}


def enrolls(count: int, *, seed: int, students: int = STUDENTS, courses: int = COURSES) -> list[Enroll]:
    """Return commands for students and courses drawn at random; the same for the same seed, others for another."""
    draw = random.Random(seed)  # noqa: S311 - to be repeatable is the point
    return [
        Enroll(
            command_id=str(UUID(int=draw.getrandbits(128), version=4)),
            student_id=draw.randint(1, students),
            course_ids=tuple(draw.sample(range(1, courses + 1), COURSES_EACH)),
        )
        for _ in range(count)
    ]


def pairs_of(commands: Iterable[Enroll]) -> set[tuple[int, int]]:
    """Return the rows that commands leave in an empty table."""
    return {pair for command in commands for pair in command.pairs}


def write(path: Path, commands: Sequence[Enroll]) -> Path:
    """Write commands to a file, one per line."""
    path.write_text("".join(f"{command.line()}\n" for command in commands))
    return path
