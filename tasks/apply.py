"""The use case: a batch of messages, in as few transactions as it takes. Knows no Celery."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import monotonic
from typing import Final, ParamSpec

from sqlalchemy import Connection

from enrollment.commands import Withdraw
from models.db_errors import describe, is_conflict, is_locked, is_outage, is_too_much
from tasks import transaction, withdrawing
from tasks.arrival import Arrival
from tasks.caution import Blocked, Caution, How
from tasks.messages import Unit, student_of
from tasks.transaction import Committed

P = ParamSpec("P")

_CONFLICTS: Final = 3  # times a batch is read and decided anew because a concurrent one came first
_SEARCH: Final = 0.3  # seconds in which the commands that need a lock nobody can name are singled out; then all wait


class Applier:
    """Applies the units of one batch."""

    def __init__(self, arrival: Arrival, caution: Caution, keep_alive: Callable[[], None]) -> None:
        """Take what the units have in common; `keep_alive` is called after each attempt that failed."""
        self._arrival = arrival
        self._caution = caution
        self._keep_alive = keep_alive
        self._search_until: float | None = None

    def apply(self, connection: Connection, units: Sequence[Unit], how: How) -> Iterator[Committed]:
        """Apply `units` in one transaction; where one of them breaks it, in as few as it takes to single that one out.

        The broken one is committed as a dead letter. What somebody else has locked is left or put off, as `how` says.
        Raises what `keep_alive` raises, Blocked where a whole table is locked, and what `is_outage` tells: then nothing
        of the transaction under way has happened, and what was yielded before stands. Repeating the same units is
        harmless at any time.
        """
        try:
            yield self._reading_again(connection, units, how)
        except Blocked:
            raise
        except Exception as error:
            divisible = len(units) > 1 and is_too_much(error)
            if isinstance(error, MemoryError) or (is_outage(error) and not divisible and not is_locked(error)):
                raise
            self._keep_alive()
            yield from (
                self._after_lock(connection, units, how)
                if is_locked(error)
                else self._after_fault(connection, units, how, error)
            )

    def _after_lock(self, connection: Connection, units: Sequence[Unit], how: How) -> Iterator[Committed]:
        """Go on where a lock was waited for in vain: look first; and if that did not tell which, try and see."""
        self._caution.alert()
        careful = replace(how, careful=True, put_off=True, wait_for=frozenset())
        if careful != how:
            yield from self.apply(connection, units, careful)
            return
        self._search_until = self._search_until or monotonic() + _SEARCH
        students = set(map(student_of, units))
        if len(students) > 1 and monotonic() < self._search_until:
            yield from self._halves(connection, units, how)
            return
        if len(students) == 1:
            self._caution.avoid(*students)
        yield _timed(transaction.put_off, connection, units, self._arrival)

    def _after_fault(
        self, connection: Connection, units: Sequence[Unit], how: How, error: Exception
    ) -> Iterator[Committed]:
        if len(units) == 1:
            yield _timed(transaction.dead_letter, connection, units[0], describe(error))
        else:
            # Put off, not left: what the first half leaves would have a later place than the second.
            yield from self._halves(connection, units, replace(how, put_off=True))

    def _halves(self, connection: Connection, units: Sequence[Unit], how: How) -> Iterator[Committed]:
        half = len(units) // 2
        yield from self.apply(connection, units[:half], how)
        yield from self.apply(connection, units[half:], how)

    def _reading_again(self, connection: Connection, units: Sequence[Unit], how: How) -> Committed:
        run = withdrawing.run if isinstance(units[0].request, Withdraw) else transaction.run
        for _ in range(_CONFLICTS):
            try:
                return _timed(run, connection, units, self._arrival, how)
            except Exception as error:
                if not is_conflict(error):
                    raise
        return _timed(run, connection, units, self._arrival, how)


def _timed(run: Callable[P, Committed], *arguments: P.args, **more: P.kwargs) -> Committed:
    """Run one transaction, and note when it began."""
    begun = monotonic()
    return replace(run(*arguments, **more), begun=begun)
