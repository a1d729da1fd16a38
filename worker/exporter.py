"""What is measured once for the whole system, asked of the servers when Prometheus scrapes. docs/metrics.md has it all.

A server that is away is `enrollment_up{server} 0`, and its numbers are left out; the others are served.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from time import monotonic
from typing import Any, Final, TypeVar

import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from enrollment.addresses import replicas_of
from models.address import parameters
from models.awaited import Counts
from models.db_errors import describe
from models.deferred import AWAITED, Reason
from models.engine import make_engine
from models.primary import hosts
from models.statistics import Statistics, statistics
from worker import brokers, streams
from worker.brokers import Depths
from worker.heartbeats import Heartbeats
from worker.settings import Settings
from worker.streams import StreamState

# Of each statement: a scrape is given ten seconds by Prometheus, and nobody may wait behind a scrape.
_OPTIONS: Final = {"statement_timeout": "4s", "lock_timeout": "1s"}

T = TypeVar("T")

log = structlog.get_logger(__name__)


class System(Collector):
    """The collector. Several scrapes at the same time are fine."""

    def __init__(self, settings: Settings) -> None:
        address = settings.database_address()
        engine = make_engine(address, application_name="enrollment exporter", options=_OPTIONS)
        # Not a setting of the session: libpq would take the primary for a server that takes no writes.
        self._engine: Engine = engine.execution_options(postgresql_readonly=True)
        options, credentials = settings.transport_options(), settings.events_credentials()
        keys, known_by = settings.broker_options, options.get("credential_provider")
        broker_url, events_url = settings.require_broker_url(), settings.require_events_url()
        self._broker = brokers.watch(broker_url, keys, known_by)
        self._stream = streams.watch(events_url, settings.events_stream, credentials)
        several = len(list(hosts(parameters(address())))) > 1
        self._wanted = {"database": int(several), "broker": replicas_of(broker_url), "stream": replicas_of(events_url)}
        self._longest = settings.events_maxlen
        self.heartbeats = Heartbeats(settings.require_broker_url(), options)

    def collect(self) -> Iterator[Metric]:
        """Ask all servers at once, and yield what they say."""
        with ThreadPoolExecutor(3, "scrape") as pool:
            asked: dict[str, Future[tuple[Any, list[Metric], float]]] = {
                "database": pool.submit(_timed, "database", self._database, database),
                "broker": pool.submit(_timed, "broker", self._broker.depths, broker),
                "stream": pool.submit(_timed, "stream", self._stream.state, lambda it: stream(it, self._longest)),
            }
            answers = {server: future.result() for server, future in asked.items()}
        up = _gauge("enrollment_up", "1 where the server answered this scrape.", "server")
        took = _gauge("enrollment_exporter_scrape_seconds", "Seconds that the server took to answer.", "server")
        there = _gauge("enrollment_replicas", "Replicas, or standbys, that the server has.", "server")
        wanted = _gauge("enrollment_replicas_wanted", "How many of them must have what is written.", "server")
        for server, (found, shown, seconds) in answers.items():
            up.add_metric([server], found is not None)
            took.add_metric([server], seconds)
            if found is not None and found.replicas is not None:
                there.add_metric([server], found.replicas)
                wanted.add_metric([server], max(found.needed, self._wanted[server]))
            yield from shown
        yield from (up, took, there, wanted)
        if answers["broker"][0] is not None:
            alive = self.heartbeats.alive()
            yield _plain("enrollment_workers", "Worker processes whose heartbeat came in the last seconds.", len(alive))
            about = "Those that fell silent within ten minutes, and did not say that they end."
            yield _plain("enrollment_workers_silent", about, self.heartbeats.silent())

    def close(self) -> None:
        """Hang up."""
        self._engine.dispose()
        self._broker.close()
        self._stream.close()
        self.heartbeats.close()

    def _database(self) -> Statistics:
        with self._engine.connect() as connection:
            return statistics(connection)


def registry_of(system: System) -> CollectorRegistry:
    """Return a registry of this collector alone."""
    registry = CollectorRegistry()
    registry.register(system)
    return registry


def database(found: Statistics) -> Iterator[Metric]:
    """Yield what the database says."""
    yield _plain("enrollment_outbox_batches", "Batches whose events are not published yet.", found.outbox_batches)
    yield _plain("enrollment_outbox_oldest_seconds", "Age of the oldest of them: the relay's lag.", found.outbox_age)
    letters = _gauge("enrollment_dead_letters_open", "Dead letters that nobody has decided about.", "code")
    for code in sorted({*brokers.DEAD_LETTER_CODES, *found.open_dead_letters}):
        letters.add_metric([code], found.open_dead_letters.get(code, 0))
    yield letters
    commands = _gauge("enrollment_deferred_commands", "Commands that are put off, by what they wait for.", "reason")
    waited = _gauge("enrollment_deferred_oldest_seconds", "Seconds since the first of them came.", "reason")
    waiting = {wait.reason: wait for wait in found.deferred}
    for reason in (it for it in Reason if it not in AWAITED):
        commands.add_metric([reason], waiting[reason].commands if reason in waiting else 0)
        waited.add_metric([reason], waiting[reason].seconds if reason in waiting else 0)
    yield from (commands, waited)
    yield from _waiting(found.waiting)
    size = _gauge("enrollment_table_bytes", "Bytes on disk, indexes included.", "table")
    rows = _gauge("enrollment_table_rows", "Rows, as the last VACUUM or ANALYZE estimated them.", "table")
    for name, table in found.tables.items():
        size.add_metric([name], table.size)
        rows.add_metric([name], table.rows)
    yield from (size, rows)
    yield _plain("enrollment_database_lock_waits", "Connections that wait for a lock.", found.lock_waits)
    about = "Seconds that the longest of them has waited."
    yield _plain("enrollment_database_lock_wait_seconds", about, found.longest_lock_wait)
    about = "Seconds until the slowest standby shows a commit."
    yield _plain("enrollment_database_standby_lag_seconds", about, found.standing.lag)
    about = "Seconds for which the change feed has stood still, because a transaction that writes goes on."
    yield _plain("enrollment_feed_behind_seconds", about, found.feed_behind)
    yield _plain("enrollment_retention_removed_rows", "Rows that retention has removed.", found.retention_removed)
    if found.retention_completed is not None:
        about = "When retention last came to the end of the tables."
        yield _plain("enrollment_retention_completed_timestamp_seconds", about, found.retention_completed)


def _waiting(found: Counts) -> Iterator[Metric]:
    about = "Commands that wait for their time, or for a student or course; counted up to 100,000."
    waiting = _gauge("enrollment_waiting_commands", about, "reason")
    about = "Commands that wait for the one student or course for which the most do."
    most = _gauge("enrollment_waiting_for_one_commands", about, "reason")
    for reason, commands in found.commands.items():
        waiting.add_metric([reason], commands)
    for reason in (Reason.UNKNOWN_COURSE, Reason.UNKNOWN_STUDENT):
        shares = [share.commands for share in found.shares if share.reason is reason]
        most.add_metric([reason], max(shares, default=0))
    yield from (waiting, most)


def broker(found: Depths) -> Iterator[Metric]:
    """Yield what the broker says."""
    waiting = _gauge("enrollment_queue_messages", "Messages that wait, of all priorities.", "queue")
    oldest = _gauge("enrollment_queue_oldest_seconds", "Age of the message that has waited longest.", "queue")
    for name, queue in found.queues.items():
        waiting.add_metric([name], queue.messages)
        if queue.oldest is not None:
            oldest.add_metric([name], queue.oldest)
    yield from (waiting, oldest)
    if found.unacknowledged is not None:
        about = "Messages that a worker has claimed and not acknowledged."
        yield _plain("enrollment_unacknowledged_messages", about, found.unacknowledged)
        about = "Seconds since the oldest claim was made or renewed."
        yield _plain("enrollment_unacknowledged_oldest_seconds", about, found.oldest_claim)


def stream(found: StreamState, longest: int) -> Iterator[Metric]:
    """Yield what the event stream says; it is trimmed to about `longest` entries."""
    yield _plain("enrollment_stream_entries", "Entries on the event stream.", found.entries)
    yield _plain("enrollment_stream_max_entries", "Entries to which it is trimmed.", longest)
    if found.added is not None:
        about = "Entries that were ever added; it falls only where the stream was lost."
        yield CounterMetricFamily("enrollment_stream_entries_added", about, value=found.added)
    lag = _gauge("enrollment_stream_group_lag_entries", "Entries that the group has not read.", "group")
    pending = _gauge("enrollment_stream_group_pending_entries", "Entries read and not acknowledged.", "group")
    missed = _gauge("enrollment_stream_group_missed", "1 where entries were trimmed that it had not read.", "group")
    for group in found.groups:
        if group.lag is not None:
            lag.add_metric([group.name], group.lag)
        pending.add_metric([group.name], group.pending)
        if group.missed is not None:
            missed.add_metric([group.name], group.missed)
    yield from (lag, pending, missed)


def _timed(
    server: str, ask: Callable[[], T], show: Callable[[T], Iterator[Metric]]
) -> tuple[T | None, list[Metric], float]:
    begin = monotonic()
    try:
        found = ask()
        return found, list(show(found)), monotonic() - begin
    except Exception as error:  # noqa: BLE001 - whatever it is, the other servers have something to say
        log.warning("server_not_measured", server=server, error=describe(error))
        return None, [], monotonic() - begin


def _plain(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(name, about, value=value)


def _gauge(name: str, about: str, label: str) -> Any:
    return GaugeMetricFamily(name, about, labels=[label])
