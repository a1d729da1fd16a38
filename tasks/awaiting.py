"""Commands that wait for their time, or for a student or course: decided when it has come, by the way of every batch.

Times are looked for by index. Of students and courses all that are waited for are looked at, one after the other and
some at a time: a worker gives that a small part of its time, however many there are. PostgreSQL counts the rows that
are added to both tables; when it counts more, the next look at all of them is a faster one.
"""

from collections import Counter
from time import monotonic
from typing import Final

import structlog
from sqlalchemy import Engine

from models import awaited, deferred, locks
from models.db_errors import describe, is_locked, is_outage
from models.deferred import Deferred, Wait
from tasks.arrival import Arrival
from tasks.caution import Blocked
from tasks.deferred import BUDGET, LOOK, Settle
from tasks.deferring import PutOff, units_from

_BLOCKS: Final = 100  # of commands looked at in one step; some 10 milliseconds
_PAGE: Final = 500  # commands decided in one step
_REST: Final = 29  # a pause is at least so many times as long as the look before it
_HURRY: Final = 1  # the same while students or courses were added

log = structlog.get_logger(__name__)


class Awaiting:
    """What one worker does about the commands that wait."""

    def __init__(self, engine: Engine, settle: Settle) -> None:
        self._engine = engine
        self._settle = settle
        self._after: Wait | None = None  # what was looked at last; None: the look begins anew
        self._look_from = 0.0
        self._added = -1  # students and courses, as PostgreSQL counts them
        self._hurried = 0  # times that all of them are still looked at fast, the one that is under way included
        self._next: float | None = None  # seconds until a time comes, when that was asked last

    def release(self) -> float | None:
        """Decide what waits no longer; return the seconds until the next look, None: nothing waits."""
        begin = monotonic()
        try:
            while self._step():
                if monotonic() > begin + BUDGET:
                    return monotonic() - begin  # half of the time is for what arrives
        except Exception as error:
            locked = isinstance(error, Blocked) or is_locked(error)
            if not (locked or is_outage(error)):
                raise
            if not locked:
                log.warning("waiting_commands_away", error=describe(error))
            # What was found and not decided is passed otherwise.
            self._hurried, self._after, self._look_from = max(self._hurried, 1), None, 0.0
            return LOOK
        if self._next is None:
            return None
        rest = max(self._look_from - monotonic(), 0.01)
        return min(LOOK, rest, self._next if self._next > 0 else LOOK)  # what is over is at hand of another worker

    def _step(self) -> bool:
        """Decide some; tell whether there is more to decide right now."""
        # Both: however many are over, what has come in the catalog is decided meanwhile. One may be either.
        kept = {it.id: it for it in (*self._over(), *self._there())}
        if not kept:
            return False
        decided = self._settle(units_from(list(kept.values())), Arrival(), lambda: None, releasing=True)
        done = sum(not isinstance(result, PutOff) for _, result in decided)
        if done:
            log.info("waiting_commands_decided", commands=done)
        return True

    def _over(self) -> list[Deferred]:
        """Return commands whose time has come, or whose wait is over."""
        with self._engine.begin() as connection:  # committed: after a rollback psycopg forgets what it has prepared
            self._next = awaited.next_over(connection)
            if self._next is not None:
                self._hurry(awaited.added(connection))
            return awaited.over(connection, _PAGE) if self._next is not None and self._next <= 0 else []

    def _hurry(self, added: int) -> None:
        """Look at all students and courses fast where some were added: from now on, or once more after this time."""
        if added == self._added:
            return
        if not self._hurried:
            self._after, self._look_from = None, 0.0
        self._added, self._hurried = added, min(self._hurried + 1, 2)

    def _there(self) -> list[Deferred]:
        """Return commands whose student or course is there now, of the next that are looked at."""
        begin = monotonic()
        if self._next is None or begin < self._look_from:
            return []
        with self._engine.begin() as connection:  # what is locked here is let go of, and locked again to be decided
            locks.reserve(connection)
            while True:
                looked = awaited.look(connection, self._after, _BLOCKS)
                each = max(1, _PAGE // max(1, len(looked.there)))  # many that wait for one hold up no others
                kept = deferred.page(connection, looked.there, _PAGE, each=each)
                if len(kept) < _PAGE and max(Counter(it.wait for it in kept).values(), default=0) < each:
                    self._after = looked.last
                if kept or self._after is None or monotonic() > begin + BUDGET:
                    break
        if not kept:
            rest = (_HURRY if self._hurried else _REST) * (monotonic() - begin)
            all_looked_at = self._after is None
            self._hurried -= all_looked_at and self._hurried > 0
            self._look_from = max(begin + LOOK * all_looked_at, monotonic() + rest)
        return kept
