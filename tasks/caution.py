"""What a worker remembers of locks that others hold, so that it need not run into the same ones again and again."""

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final

from enrollment.waiting import AT_ONCE, Policy
from models.deferred import AWAITED, Reason, Wait

CAREFUL: Final = 5.0  # seconds in which batches look before they write, after one has run into a lock
RETRY: Final = 1.0  # seconds between attempts while a table is locked
STUCK: Final = 3.0  # seconds in which a student that was locked is taken to be so for long
AVOIDED: Final = 10.0  # seconds in which a student is not tried whose rows nobody can ask about; a release still does


class Blocked(Exception):
    """A table is locked by somebody else: nothing can be applied, and nothing be put off. Try again in a second."""


@dataclass(frozen=True, slots=True)
class How:
    """How a batch deals with the locks of others, and with what does not exist yet."""

    careful: bool = False  # look whether all can be locked before anything is written
    put_off: bool = False  # what is locked is put off; else it is left, for a transaction of its own
    wait_for: AbstractSet[int] = frozenset()  # students whose lock is waited for: another worker's, for a moment
    stuck: AbstractSet[int] = frozenset()  # students that are put off at once where they are locked
    avoided: AbstractSet[int] = frozenset()  # students that are put off without a try
    policy: Policy = AT_ONCE  # how long commands wait
    releasing: bool = False  # an outage is not waited out: what was put off is kept where it is


class Caution:
    """The memory of one process. Whatever it forgets, or has wrong, costs time alone."""

    def __init__(self) -> None:
        self._until = 0.0
        self._stuck: dict[int, float] = {}
        self._avoided: dict[int, float] = {}

    def advise(self, how: How) -> How:
        """Return how the next batch should go about it."""
        now = monotonic()
        for memory in (self._stuck, self._avoided):
            for student_id in [student_id for student_id, until in memory.items() if until < now]:
                del memory[student_id]
        return replace(how, careful=now < self._until, stuck=self._stuck.keys(), avoided=self._avoided.keys())

    def alert(self) -> None:
        """Take note that a batch ran into a lock."""
        self._until = monotonic() + CAREFUL

    def note(self, waits: Iterable[Wait]) -> None:
        """Take note of what is locked."""
        now = monotonic()
        for reason, id_ in waits:
            if reason is Reason.STUDENT:
                self._stuck[id_] = now + STUCK
            elif reason not in AWAITED:
                self._until = now + CAREFUL

    def avoid(self, student_id: int) -> None:
        """Take note that this student's rows need a lock that nothing can ask for."""
        self._avoided[student_id] = monotonic() + AVOIDED

    def forgive(self, student_ids: Iterable[int | None]) -> None:
        """Take note that something of these students was applied."""
        for student_id in student_ids if self._avoided else ():
            self._avoided.pop(student_id or 0, None)
