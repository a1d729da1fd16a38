"""The order of arrival: when each unit of a batch was first seen, and which units keep together."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

from enrollment.fold import STEP, times_from
from enrollment.parsing import Unidentified
from tasks.messages import Unit

Seen = tuple[Unit, datetime]  # a unit, and when it was first seen


class Arrival:
    """When a batch was first seen, by the clock of the database: what commands without a stamp get for one.

    However many transactions a batch takes, a later one gets later times.
    """

    def __init__(self) -> None:
        self._since = monotonic()
        self._next: datetime | None = None

    def times(self, now: datetime, count: int) -> list[datetime]:
        """Return `count` rising times that nobody had before; `now` is the clock."""
        if self._next is None:
            self._next = now - timedelta(seconds=monotonic() - self._since)
        first = self._next
        self._next += count * STEP
        return times_from(first, count)

    def of(self, units: Sequence[Unit], clock: Callable[[], datetime]) -> list[Seen]:
        """Return units with the time at which each was first seen."""
        times = self.times(clock(), len(units))
        return [(u, t if u.kept is None else u.kept.first_seen) for u, t in zip(units, times, strict=True)]


def defer(
    units: Sequence[Unit], students: AbstractSet[int], command_ids: AbstractSet[UUID] = frozenset()
) -> tuple[Sequence[Unit], Sequence[Unit]]:
    """Return the units that may be applied now, and those of these students or under these ids, which may not yet.

    Of what is under one id the first stands, so what comes under an id that is deferred is deferred, too, and with it
    what its student is told later: without a stamp, the order of arrival is what counts.
    """
    selected: list[Unit] = []
    deferred: list[Unit] = []
    held, ids = set(students), set(command_ids)
    for unit in units:
        request = unit.request
        if not isinstance(request, Unidentified) and (request.student_id in held or request.command_id in ids):
            deferred.append(unit)
            ids.add(request.command_id)
            if request.student_id is not None:
                held.add(request.student_id)
        else:
            selected.append(unit)
    return selected, deferred
