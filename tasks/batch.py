"""How a batch is cut into transactions, what of it has to wait, and how an outage is waited out. Knows no Celery."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from time import monotonic
from typing import Final, Protocol

import structlog
from sqlalchemy import Connection, Engine

from enrollment.commands import Withdraw
from enrollment.parsing import Unidentified
from enrollment.waiting import Policy
from models import dead_letters, locks, replication
from models.dead_letters import NewDeadLetter
from tasks.apply import Applier
from tasks.arrival import Arrival, defer
from tasks.awaiting import Awaiting
from tasks.caution import Blocked, Caution, How
from tasks.deferred import Releases
from tasks.messages import Message, Unit, student_of, units_of
from tasks.outages import every_second, retry_on_outage
from tasks.results import summaries
from tasks.transaction import Committed, Result

_ROUNDS: Final = (False, False, True)  # whether students that are still locked are put off, or left for the next round
_LETTERS_LOCKED: Final = 2.0  # seconds in which dead letters are taken to be locked still

MAX_PAIRS: Final = 20_000  # pairs (student, course) and commands in one transaction; some half a second

log = structlog.get_logger(__name__)


class EventRelay(Protocol):
    """Publishes what is committed."""

    def publish(self, connection: Connection, batch: Committed) -> None:
        """Publish the events of one transaction, right after its commit; `connection` is in none."""

    def mark_backlog(self) -> None:
        """Take it that the outbox holds something: a commit whose answer was lost left its events there."""


def chunks(units: Sequence[Unit]) -> Iterator[Sequence[Unit]]:
    """Cut a batch where one transaction would become too long: it holds locks, and the worker is deaf meanwhile.

    And between commands and withdraws, which are decided in ways of their own.
    """
    start, pairs, withdraws = 0, 0, False
    for end, unit in enumerate(units):
        course_ids = () if isinstance(unit.request, Unidentified) else unit.request.course_ids or ()
        pairs += 1 + len(course_ids)
        turn = withdraws is not (type(unit.request) is Withdraw)
        withdraws = withdraws is not turn
        if (turn or pairs > MAX_PAIRS) and end > start:
            yield units[start:end]
            start, pairs = end, 1 + len(course_ids)
    if start < len(units):
        yield units[start:]


class BatchProcessor:
    """Applies batches, one after the other, and hands what is committed to the relay."""

    def __init__(self, engine: Engine, relay: EventRelay, policy: Policy) -> None:
        self._engine = engine
        self._relay = relay
        self._policy = policy
        self._caution = Caution()
        self._bury_from = 0.0
        self._releases = Releases(engine, self._settle)
        self._awaiting = Awaiting(engine, self._settle_in_order)

    def handle(
        self,
        messages: Sequence[Message],
        keep_alive: Callable[[], None] = lambda: None,
        arrival: Arrival | None = None,
    ) -> list[str]:
        """Apply and publish one batch; return what came of each message, in a few words.

        Waits as long as the database is away, and calls `keep_alive` about every second meanwhile. Raises Blocked where
        a table is locked by somebody else: try the same again in a second, with the same `arrival`.
        """
        try:
            decided = self._settle(units_of(messages), arrival or Arrival(), every_second(keep_alive))
        except Blocked:
            self._releases.warn_of_tables()
            raise
        self._releases.warn(decided)
        return summaries(messages, decided)

    def dead_letter(self, letters: Sequence[NewDeadLetter], keep_alive: Callable[[], None] = lambda: None) -> None:
        """Keep messages that cannot become commands. Waits as long as the database is away. Raises Blocked."""

        def attempt() -> None:
            with self._engine.begin() as connection:
                dead_letters.put(connection, letters)
                replication.confirm(connection)

        if monotonic() < self._bury_from:  # one after the other would be waited for
            raise Blocked
        try:
            retry_on_outage(self._engine, attempt, keep_alive, self._relay.mark_backlog)
        except Blocked:
            self._bury_from = monotonic() + _LETTERS_LOCKED
            raise

    def release(self) -> float | None:
        """Apply what was put off and waits no longer; return the seconds until more may be done, None: nothing waits.

        Comes back within half a second or so. What an outage stops is left.
        """
        pauses = [self._releases.release(), self._awaiting.release()]
        return min((pause for pause in pauses if pause is not None), default=None)

    def _settle_in_order(
        self, units: Sequence[Unit], arrival: Arrival, keep_alive: Callable[[], None], *, releasing: bool
    ) -> list[tuple[Unit, Result]]:
        """Settle so that what was told of these units before comes first on the stream: that they wait."""
        self._relay.mark_backlog()
        return self._settle(units, arrival, keep_alive, releasing=releasing)

    def _settle(
        self, units: Sequence[Unit], arrival: Arrival, keep_alive: Callable[[], None], *, releasing: bool = False
    ) -> list[tuple[Unit, Result]]:
        decided: list[tuple[Unit, Result]] = []
        applier = Applier(arrival, self._caution, keep_alive)
        deferred = units
        for last in _ROUNDS:
            deferred = self._round(
                applier, deferred, decided, keep_alive, How(releasing, last, policy=self._policy, releasing=releasing)
            )
        return decided

    def _round(
        self,
        applier: Applier,
        units: Sequence[Unit],
        decided: list[tuple[Unit, Result]],
        keep_alive: Callable[[], None],
        how: How,
    ) -> Sequence[Unit]:
        """Apply units, a chunk at a time; return those that are deferred to the next round, none with `put_off`."""
        deferred: list[Unit] = []
        for chunk in chunks(units):
            keep_alive()
            requests = [unit.request for unit in deferred if not isinstance(unit.request, Unidentified)]
            students = {request.student_id for request in requests if request.student_id is not None}
            selected, later = defer(chunk, students, {request.command_id for request in requests})
            deferred += later
            for committed in self._apply(applier, selected, keep_alive, how) if selected else ():
                decided += committed.decided
                deferred += committed.deferred
        return sorted(deferred, key=lambda unit: unit.arrived)

    def _apply(
        self, applier: Applier, units: Sequence[Unit], keep_alive: Callable[[], None], how: How
    ) -> list[Committed]:
        committed: list[Committed] = []

        def attempt() -> None:
            committed.clear()
            with self._engine.connect() as connection:
                for transaction in applier.apply(connection, units, self._knowing(connection, units, how)):
                    committed.append(transaction)
                    self._caution.note(transaction.waits)
                    self._caution.forgive(record.student_id for record in transaction.records)
                    if transaction.more:  # withdrawn: that they wait may not be told yet, and goes first
                        self._relay.mark_backlog()
                    self._relay.publish(connection, transaction)

        retry_on_outage(self._engine, attempt, keep_alive, self._relay.mark_backlog, once=how.releasing)
        return committed

    def _knowing(self, connection: Connection, units: Sequence[Unit], how: How) -> How:
        """Return how to go about it, with what is known of the locks of others."""
        if how.put_off:
            students = set(map(student_of, units))
            with connection.begin():
                how = replace(how, wait_for=students - locks.held_by_others(connection, students))
        return how if how.careful else self._caution.advise(how)
