"""Commands that were put off: applied as soon as what they wait for is free, by the way of every batch."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import chain, groupby
from time import monotonic
from typing import Final, Protocol

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from models import deferred, holders, locks
from models.db_errors import describe, is_locked, is_outage
from models.deferred import Reason, Wait
from models.holders import Session
from tasks.arrival import Arrival
from tasks.caution import Blocked
from tasks.deferring import PutOff, units_from
from tasks.messages import Unit, student_of
from tasks.transaction import Result

LOOK: Final = 1.0  # seconds between looks while something waits
BUDGET: Final = 0.3  # seconds of one look: commands that arrive have to wait meanwhile
_WAITS: Final = 1_000  # students and courses looked at in one step
_PAGE: Final = 500  # commands applied in one step
_WARN: Final = 10.0  # seconds between warnings
_SHOWN: Final = 5

log = structlog.get_logger(__name__)


class Settle(Protocol):
    """Applies units, in rounds, and publishes their events."""

    def __call__(
        self, units: Sequence[Unit], arrival: Arrival, keep_alive: Callable[[], None], *, releasing: bool
    ) -> list[tuple[Unit, Result]]: ...


class Releases:
    """What one worker does about the commands that wait, and says of them."""

    def __init__(self, engine: Engine, settle: Settle) -> None:
        self._engine = engine
        self._settle = settle
        self._after: Wait | None = None  # what was looked at last
        self._told = False  # that commands wait
        self._tell_from = 0.0

    def release(self) -> float | None:
        """Apply what waits no longer; return the seconds until the next look, None: nothing waits."""
        begin = monotonic()
        try:
            more = self._step()
            while more and monotonic() < begin + BUDGET:
                more = self._step()
        except Blocked:
            return LOOK
        except Exception as error:
            if not is_outage(error):
                raise
            if not is_locked(error):
                log.warning("deferred_commands_away", error=describe(error))
            return LOOK
        if more is None:
            self._over()
            return None
        return monotonic() - begin if more else LOOK  # half of the time is for what arrives

    def warn(self, decided: Sequence[tuple[Unit, Result]]) -> None:
        """Say what was put off, and who holds what it waits for; not more often than every few seconds."""
        waits = [result.wait for _, result in decided if isinstance(result, PutOff)]
        if not waits or not self._may_tell():
            return
        self._told = True
        students, courses = (
            sorted({wait.id for wait in waits if wait.id and (wait.reason is Reason.COURSE) is of_courses})[:_SHOWN]
            for of_courses in (False, True)
        )
        sessions = self._sessions(lambda: holders.holders_of(self._engine, waits))
        log.warning("commands_deferred", commands=len(waits), students=students, courses=courses, sessions=sessions)

    def warn_of_tables(self) -> None:
        """Say that a table is locked, so that nothing can be applied, and by whom; not more often than `warn`."""
        if self._may_tell():
            sessions = self._sessions(lambda: holders.holders_of_tables(self._engine))
            log.warning("tables_locked", waiting="commands stay in the queue", sessions=sessions)

    def _step(self) -> bool | None:
        """Apply some; tell whether there is more to look at. None: nothing waits."""
        with self._engine.begin() as connection:  # what is locked here is let go of, and locked again to be applied
            waits = deferred.waits(connection, self._after, _WAITS)
            if not waits and self._after is not None:
                self._after = None
                waits = deferred.waits(connection, None, _WAITS)
            if not waits:
                return None
            locks.reserve(connection)
            kept = deferred.page(connection, locks.free(connection, waits), _PAGE)
        full, all_looked_at = len(kept) == _PAGE, len(waits) < _WAITS
        self._after = kept[-1].wait if full else None if all_looked_at else waits[-1]
        applied, cut_off = self._apply_all(units_from(kept))
        if applied:
            log.info("deferred_commands_applied", commands=applied)
        if cut_off:
            self._after = cut_off
            return applied > 0
        return full or not all_looked_at

    def _apply_all(self, units: Sequence[Unit]) -> tuple[int, Wait | None]:
        """Apply units, those that wait for what nothing can name last; return how many, and where time ended.

        Of the latter one student alone, then twice as many after each success: a vain attempt takes some time.
        """
        applied = self._apply([unit for unit in units if _wait_of(unit).reason is not Reason.OTHER])
        others = sorted((unit for unit in units if _wait_of(unit).reason is Reason.OTHER), key=student_of)
        students = [list(mine) for _, mine in groupby(others, key=student_of)]
        until, size = monotonic() + BUDGET, 1
        while students:
            mine, students = list(chain(*students[:size])), students[size:]
            done = self._apply(mine)
            applied += done
            size = 2 * size if done == len(mine) else 1
            if students and monotonic() > until:
                return applied, _wait_of(mine[-1])
        return applied, None

    def _apply(self, units: Sequence[Unit]) -> int:
        """Apply units; return for how many that was possible."""
        decided = self._settle(units, Arrival(), lambda: None, releasing=True) if units else []
        return sum(not isinstance(result, PutOff) for _, result in decided)

    def _over(self) -> None:
        if self._told:
            self._told = False
            log.warning("commands_no_longer_deferred")

    def _may_tell(self) -> bool:
        if monotonic() < self._tell_from:
            return False
        self._tell_from = monotonic() + _WARN
        return True

    def _sessions(self, ask: Callable[[], list[Session]]) -> list[dict[str, object]]:
        """Return the fields of a log line: of the query nothing, it may name people."""
        try:
            sessions = ask()
        except SQLAlchemyError as error:
            log.warning("holders_unknown", error=describe(error))
            return []
        return [
            {name: value for name, value in asdict(session).items() if name != "query" and value is not None}
            for session in sessions
        ]


def _wait_of(unit: Unit) -> Wait:
    assert unit.kept is not None  # noqa: S101 (it was read from where it waits)
    return unit.kept.wait
