"""The use cases bound to one process: its database connections, its event stream, and its patience in outages."""

from collections.abc import Callable, Sequence
from time import monotonic, sleep
from typing import Final, Self

import structlog
from sqlalchemy import Engine
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential_jitter

from enrollment.parsing import Unidentified
from models import dead_letters
from models.db_errors import describe, is_outage
from models.dead_letters import NewDeadLetter
from models.engine import BY_KEY, make_engine
from tasks.apply import Arrival, Committed, Result, apply, portions, set_aside
from tasks.messages import Message, Unit, units_of
from tasks.results import summaries
from worker.publishing import Publisher, connect
from worker.relay import Relay
from worker.settings import Settings

_LONGEST_PAUSE: Final = 4.0  # seconds between attempts while the database is away; work goes on within 5 of its return
_STREAM_PATIENCE: Final = 1.0  # seconds for the event stream to answer: commands wait for it meanwhile

PULSE: Final = 1.0  # seconds between signs of life while a batch is applied or waits
_ROUNDS: Final = (False, False, True)  # whether to wait for students that another batch holds

log = structlog.get_logger(__name__)


class Service:
    """Applies batches and publishes their events. One per process, made after the fork."""

    def __init__(self, engine: Engine, publisher: Publisher) -> None:
        self._engine = engine
        self._relay = Relay(engine, publisher)

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Return a service for these settings. Nothing is connected yet. Raises SettingsError."""
        engine = make_engine(settings.require_database_url(), application_name="enrollment worker", options=BY_KEY)
        client = connect(settings.require_events_url(), patience=_STREAM_PATIENCE)
        return cls(engine, Publisher(client, stream=settings.events_stream, maxlen=settings.events_maxlen))

    def handle(self, messages: Sequence[Message], keep_alive: Callable[[], None] = lambda: None) -> list[str]:
        """Apply and publish one batch; return what came of each message, in a few words.

        Waits as long as the database is away, and calls `keep_alive` about every second meanwhile.
        """
        decided: list[tuple[Unit, Result]] = []
        left: Sequence[Unit] = units_of(messages)
        arrival, alive = Arrival(), _every_second(keep_alive)
        for wait in _ROUNDS:
            left = self._round(left, arrival, decided, alive, wait=wait)
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
        """Apply units, a portion at a time; return those that are left for the next round, none with `wait`."""
        left: list[Unit] = []
        for portion in portions(units):
            keep_alive()
            requests = [unit.request for unit in left if not isinstance(unit.request, Unidentified)]
            students = {request.student_id for request in requests if request.student_id is not None}
            mine, aside = set_aside(portion, students, {request.command_id for request in requests})
            left += aside
            for committed in self._apply(mine, arrival, keep_alive, wait=wait) if mine else ():
                decided += committed.decided
                left += committed.left
        return sorted(left, key=lambda unit: unit.arrived)

    def _apply(
        self, units: Sequence[Unit], arrival: Arrival, keep_alive: Callable[[], None], *, wait: bool
    ) -> list[Committed]:
        committed: list[Committed] = []

        def attempt() -> None:
            committed.clear()
            for transaction in apply(self._engine, units, arrival, wait=wait, keep_alive=keep_alive):
                committed.append(transaction)
                self._relay.publish(transaction)

        self._patiently(attempt, keep_alive)
        return committed

    def bury(self, letters: Sequence[NewDeadLetter], keep_alive: Callable[[], None] = lambda: None) -> None:
        """Keep messages that cannot become commands. Waits as long as the database is away."""

        def attempt() -> None:
            with self._engine.begin() as connection:
                dead_letters.put(connection, letters)

        self._patiently(attempt, keep_alive)

    def relay(self, *, older_than: float | None = None) -> int:
        """Publish what is committed and not yet sent; return the number of events added."""
        return self._relay.catch_up(older_than=older_than)

    def _patiently(self, attempt: Callable[[], None], keep_alive: Callable[[], None]) -> None:
        def waiting(state: RetryCallState) -> None:
            self._relay.fall_behind()
            error = state.outcome.exception() if state.outcome else None
            seconds = round(state.next_action.sleep, 1) if state.next_action else 0
            reason = describe(error) if error else ""
            log.warning("waiting_for_database", error=reason, attempt=state.attempt_number, seconds=seconds)

        def pause(seconds: float) -> None:
            until = monotonic() + seconds
            while (left := until - monotonic()) > 0:
                keep_alive()
                sleep(min(1.0, left))
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
