"""The use cases bound to one process: its database connections and its event stream."""

from collections.abc import Callable, Sequence
from typing import Final, Self

from sqlalchemy import Engine

from enrollment.addresses import replicas_of
from enrollment.waiting import AT_ONCE, Policy
from models import retention
from models.dead_letters import NewDeadLetter
from models.engine import WORKER, WORKER_NAME, make_engine
from tasks.arrival import Arrival
from tasks.batch import BatchProcessor
from tasks.messages import Message
from tasks.retention import retain
from worker.observing import Observed
from worker.publishing import Publisher, connect
from worker.relay import Relay
from worker.settings import Settings

_STREAM_PATIENCE: Final = 1.0  # seconds for the event stream to answer: commands wait for it meanwhile


class Service:
    """Applies batches and publishes their events. One per process, made after the fork."""

    def __init__(
        self, engine: Engine, publisher: Publisher, policy: Policy = AT_ONCE, *, days: int | None = None
    ) -> None:
        """`days`: how long commands are kept; None: for ever."""
        self._engine, self._days = engine, days
        self._relay = Relay(engine, publisher)
        self._observed = Observed(self._relay)
        self._batches = BatchProcessor(engine, self._observed, policy)

    @classmethod
    def connect(cls, settings: Settings) -> Self:
        """Return a service for these settings. Nothing is connected yet. Raises SettingsError."""
        days = settings.retention
        options = WORKER if days is None else {**WORKER, retention.SETTING: str(days)}
        engine = make_engine(settings.database_address(), application_name=WORKER_NAME, options=options)
        credentials = settings.events_credentials()
        url = settings.require_events_url()
        client = connect(url, patience=_STREAM_PATIENCE, credentials=credentials)
        maxlen, most = settings.events_maxlen, settings.events_maxlen_unread
        publisher = Publisher(
            client, stream=settings.events_stream, maxlen=maxlen, most=most, replicas=replicas_of(url)
        )
        return cls(engine, publisher, settings.policy(), days=days)

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
        self._observed.begins()
        return self._batches.handle(messages, keep_alive, arrival)

    def dead_letter(self, letters: Sequence[NewDeadLetter], keep_alive: Callable[[], None] = lambda: None) -> None:
        """Keep messages that cannot become commands. Waits as long as the database is away. Raises Blocked."""
        self._batches.dead_letter(letters, keep_alive)

    def release(self) -> float | None:
        """Apply what was put off and waits no longer; return the seconds until more may be done, None: nothing waits.

        Comes back within half a second or so. What an outage stops is left.
        """
        return self._batches.release()

    def relay(self, *, older_than: float | None = None) -> int:
        """Publish what is committed and not yet sent; return the number of events added."""
        return self._relay.catch_up(older_than=older_than)

    def look_again(self) -> None:
        """Take it that the event stream may be there again, for the broker is: often they are one Redis."""
        self._relay.look_again()

    def retain(self) -> int:
        """Remove some of what is older than the retention; return the number of rows."""
        return 0 if self._days is None else retain(self._engine, self._days)
