"""From boxes that were ticked and unticked to the one command that says so."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Self

from starlette.datastructures import FormData

from enrollment.commands import MAX_ID, Kind
from gateway.admin.session import text_of
from gateway.submission import Change

_SEPARATORS: Final = re.compile(r"[\s,;]+")


class NoIds(Exception):
    """What was typed is no list of course ids."""

    def __init__(self, text: str) -> None:
        shown = text if len(text) <= 40 else f"{text[:40]}…"  # noqa: PLR2004 - enough to find it again
        super().__init__(f"“{shown}” is no course id; ids are whole numbers, such as 101.")


@dataclass(frozen=True, slots=True)
class Ticked:
    """What a form says: courses to add, and courses to take away."""

    added: frozenset[int]
    taken: frozenset[int]

    @classmethod
    def of(cls, form: FormData) -> Self:
        """Read a form: what the page showed as enrolled, what of it is still ticked, what else is. Raises NoIds."""
        kept = _numbers(form.getlist("keep"))
        added = _numbers([*form.getlist("add"), *_SEPARATORS.split(text_of(form, "ids"))])
        return cls(added, _numbers(_SEPARATORS.split(text_of(form, "had"))) - kept - added)

    def change(self, student_id: int, current: frozenset[int]) -> Change | None:
        """Return the one command that makes this difference to `current`, the courses now; None where there is none.

        A difference leaves alone what others changed since the page was shown. Only courses to add are an enroll, only
        courses to take away an unenroll; both are a replace by what there is now with the difference made to it.
        """
        taken = self.taken & current
        if self.added and taken:
            return _change(Kind.REPLACE, student_id, (current - taken) | self.added)
        if self.added:
            return _change(Kind.ENROLL, student_id, self.added)
        return _change(Kind.UNENROLL, student_id, taken) if taken else None


def numbers(text: Iterable[object]) -> list[int]:
    """Return the ids among what a browser sent; what is none is left out."""
    found = (
        int(item) for item in map(str, text) if item.isascii() and item.isdecimal() and len(item) <= len(str(MAX_ID))
    )
    return [number for number in found if 0 < number <= MAX_ID]


def _change(kind: Kind, student_id: int, course_ids: Iterable[int]) -> Change:
    return Change(kind, student_id, tuple(sorted(course_ids)))


def _numbers(text: Iterable[object]) -> frozenset[int]:
    items = [str(item) for item in text if item]
    for item in items:
        if not numbers([item]):
            raise NoIds(item)
    return frozenset(numbers(items))
