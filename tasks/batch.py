"""How a batch is cut into transactions, what of it has to wait, and how an outage is waited out. Knows no Celery."""

from collections.abc import Callable, Iterator, Sequence
from time import monotonic, sleep
from typing import Final, Protocol

import structlog
from sqlalchemy import Engine
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from enrollment.parsing import Unidentified
from models import dead_letters
from models.db_errors import describe, is_outage
from models.dead_letters import NewDeadLetter
from tasks.apply import Arrival, Committed, Result, apply, defer
from tasks.messages import Message, Unit, units_of
from tasks.results import summaries

_LONGEST_PAUSE: Final = 4.0  # seconds between attempts while the database is away; work goes on within 5 of its return

PULSE: Final = 1.0  # seconds between signs of life while a batch is applied or waits
_ROUNDS: Final = (False, False, True)  # whether to wait for students that another batch holds

MAX_PAIRS: Final = 20_000  # pairs (student, course) and commands in one transaction; some half a second

log = structlog.get_logger(__name__)


class EventRelay(Protocol):
    """Publishes what is committed."""

    def publish(self, batch: Committed) -> None:
        """Publish the events of one transaction, right after its commit."""

    def mark_backlog(self) -> None:
        """Take it that the outbox holds something: a commit whose answer was lost left its events there."""


def chunks(units: Sequence[Unit]) -> Iterator[Sequence[Unit]]:
    """Cut a batch where one transaction would become too long: it holds locks, and the worker is deaf meanwhile."""
    start, pairs = 0, 0
    for end, unit in enumerate(units):
        course_ids = () if isinstance(unit.request, Unidentified) else unit.request.course_ids or ()
        pairs += 1 + len(course_ids)
        if pairs > MAX_PAIRS and end > start:
            yield units[start:end]
            start, pairs = end, 1 + len(course_ids)
    if start < len(units):
        yield units[start:]


class BatchProcessor:
    """Applies batches, one after the other, and hands what is committed to the relay."""

    def __init__(self, engine: Engine, relay: EventRelay) -> None:
        self._engine = engine
        self._relay = relay

    def handle(self, messages: Sequence[Message], keep_alive: Callable[[], None] = lambda: None) -> list[str]:
        """Apply and publish one batch; return what came of each message, in a few words.

        Waits as long as the database is away, and calls `keep_alive` about every second meanwhile.
        """
        decided: list[tuple[Unit, Result]] = []
        deferred: Sequence[Unit] = units_of(messages)
        arrival, alive = Arrival(), _every_second(keep_alive)
        for wait in _ROUNDS:
            deferred = self._round(deferred, arrival, decided, alive, wait=wait)
        return summaries(messages, decided)

    def _round(
        self,
        units: Sequence[Unit],
        arrival: Arrival,
        decided: list[tuple[Unit, Result]],
        keep_alive: Callable[[], None],
        *,
        wait: bool,
    ) -> Sequence[Unit]:
        """Apply units, a chunk at a time; return those that are deferred to the next round, none with `wait`."""
        deferred: list[Unit] = []
        for chunk in chunks(units):
            keep_alive()
            requests = [unit.request for unit in deferred if not isinstance(unit.request, Unidentified)]
            students = {request.student_id for request in requests if request.student_id is not None}
            selected, later = defer(chunk, students, {request.command_id for request in requests})
            deferred += later
            for committed in self._apply(selected, arrival, keep_alive, wait=wait) if selected else ():
                decided += committed.decided
                deferred += committed.deferred
        return sorted(deferred, key=lambda unit: unit.arrived)

    def _apply(
        self, units: Sequence[Unit], arrival: Arrival, keep_alive: Callable[[], None], *, wait: bool
    ) -> list[Committed]:
        committed: list[Committed] = []

        def attempt() -> None:
            committed.clear()
            for transaction in apply(self._engine, units, arrival, wait=wait, keep_alive=keep_alive):
                committed.append(transaction)
                self._relay.publish(transaction)

        self._retry_on_outage(attempt, keep_alive)
        return committed

    def dead_letter(self, letters: Sequence[NewDeadLetter], keep_alive: Callable[[], None] = lambda: None) -> None:
        """Keep messages that cannot become commands. Waits as long as the database is away."""

        def attempt() -> None:
            with self._engine.begin() as connection:
                dead_letters.put(connection, letters)

        self._retry_on_outage(attempt, keep_alive)

    def _retry_on_outage(self, attempt: Callable[[], None], keep_alive: Callable[[], None]) -> None:
        def waiting(state: RetryCallState) -> None:
            self._relay.mark_backlog()
            error = state.outcome.exception() if state.outcome else None
            seconds = round(state.next_action.sleep, 1) if state.next_action else 0
            reason = describe(error) if error else ""
            log.warning("waiting_for_database", error=reason, attempt=state.attempt_number, seconds=seconds)

        def pause(seconds: float) -> None:
            until = monotonic() + seconds
            while (remaining := until - monotonic()) > 0:
                keep_alive()
                sleep(min(1.0, remaining))
            self._engine.dispose()  # a failed-over server is found by a new connection only
            keep_alive()

        Retrying(
            retry=retry_if_exception(is_outage),
            wait=wait_exponential_jitter(multiplier=0.1, max=_LONGEST_PAUSE, jitter=0.5),
            before_sleep=waiting,
            sleep=pause,
        )(attempt)


def _every_second(keep_alive: Callable[[], None]) -> Callable[[], None]:
    """Return what calls `keep_alive` when the last call, or at first this one, was a second ago."""
    last = monotonic()

    def call() -> None:
        nonlocal last
        if monotonic() - last >= PULSE:
            keep_alive()
            last = monotonic()

    return call
