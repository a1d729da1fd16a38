"""Whether the absent of a full snapshot may be taken out. Pure.

A snapshot that is cut off, or full of mistakes, looks as if everybody had left. So there are limits, and whoever knows
that everybody did leave raises them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from models.import_snapshots import Drops

WHOLE: Final = 100  # percent


@dataclass(frozen=True, slots=True)
class Limits:
    """How many of those who are enrolled now may be absent; None: any number."""

    percent: float = 20  # of all who are enrolled in scope
    number: int | None = None
    course_percent: float = 50  # of those who are enrolled in one course
    course_number: int | None = None


def objection(
    limits: Limits, asking: int, invalid: tuple[int, str | None], drops: Mapping[str, Drops], *, waits: bool = False
) -> str | None:
    """Return why nobody may be unenrolled for being absent; None where nothing is against it.

    `asking` is how many rows of the files ask for something, `invalid` how many in scope are wrong, and where the
    first is. With `waits`, rows that wait for the catalog are among these.
    """
    count, first = invalid
    if not asking:
        return "The files have no row that asks for something, so nobody counts as absent."
    if count:
        rows = "1 row is" if count == 1 else f"{count:,} rows are"
        what, then = ("invalid or waiting", ", or import the users first") if waits else ("invalid", "")
        about = "and may be about those who seem absent; correct them first"
        return f"{rows} {what} (the first is in {first}), {about}{then}."
    every, most, share = (drops.get(what, Drops(None, 0, 0)) for what in ("all", "most", "share"))
    judged = (
        _number(every, limits.number, "--max-drops"),
        _share(every, limits.percent, "--max-drop-percent"),
        _number(most, limits.course_number, "--max-course-drops"),
        _share(share, limits.course_percent, "--max-course-drop-percent"),
    )
    return next(filter(None, judged), None)


def _number(drops: Drops, most: int | None, option: str) -> str | None:
    if most is None or drops.drops <= most:
        return None
    return f"{_absent(drops)}, more than {most:,}; if that is right, raise {option}."


def _share(drops: Drops, percent: float, option: str) -> str | None:
    if drops.drops * WHOLE <= percent * drops.members:
        return None
    return f"{_absent(drops)}, more than {percent:g} %; if that is right, raise {option}."


def _absent(drops: Drops) -> str:
    where = "" if drops.course is None else f" in {drops.course}"
    return f"{drops.drops:,} of the {drops.members:,} who are enrolled{where} are absent from the files"
