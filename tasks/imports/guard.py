"""Whether the absent of a full snapshot may be taken out. Pure.

A snapshot that is cut off, or full of mistakes, looks as if everybody had left. So there are limits, and whoever knows
that everybody did leave raises them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from models.planning import Drops

WHOLE: Final = 100  # percent


@dataclass(frozen=True, slots=True)
class Limits:
    """How many of those who are enrolled now may be absent; None: any number."""

    percent: float = 20  # of all who are enrolled in scope
    number: int | None = None
    course_percent: float = 50  # of those who are enrolled in one course
    course_number: int | None = None


def objection(limits: Limits, asking: int, invalid: tuple[int, int | None], drops: Mapping[str, Drops]) -> str | None:
    """Return why nobody may be unenrolled for being absent; None where nothing is against it.

    `asking` is how many rows of the files ask for something, `invalid` how many in scope are wrong, and the first line.
    """
    count, line = invalid
    if not asking:
        return "The files have no row that asks for something, so nobody counts as absent."
    if count:
        rows = "1 row is" if count == 1 else f"{count:,} rows are"
        return f"{rows} invalid (the first is line {line}), and may be about those who seem absent; correct them first."
    every, most, share = (drops.get(what, Drops(None, 0, 0)) for what in ("all", "most", "share"))
    if limits.number is not None and every.drops > limits.number:
        return f"{_absent(every)}, more than {limits.number:,}; if that is right, raise --max-drops."
    if every.drops * WHOLE > limits.percent * every.members:
        return f"{_absent(every)}, more than {limits.percent:g} %; if that is right, raise --max-drop-percent."
    if limits.course_number is not None and most.drops > limits.course_number:
        return f"{_absent(most)}, more than {limits.course_number:,}; if that is right, raise --max-course-drops."
    if share.drops * WHOLE > limits.course_percent * share.members:
        percent = f"{limits.course_percent:g} %"
        return f"{_absent(share)}, more than {percent}; if that is right, raise --max-course-drop-percent."
    return None


def _absent(drops: Drops) -> str:
    where = "" if drops.course is None else f" in {drops.course}"
    return f"{drops.drops:,} of the {drops.members:,} who are enrolled{where} are absent from the files"
