"""Signs that a store was restored, for `doctor`. They fade when work goes on; `enrollment reconcile` sees all of it."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from redis import Redis
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from enrollment.consumer.reader import entry_of
from models import epoch, outbox, reconciling
from models.engine import make_engine
from tasks.putting_back import lost_of
from worker.cli.output import moment, number
from worker.health import Finding
from worker.reconciling import time_of
from worker.settings import Settings, SettingsError

LOOKED_AT: Final = 100  # entries
CLOCKS: Final = timedelta(minutes=1)  # by which those of the servers may differ
_ADVICE: Final = "Stop the workers and run `enrollment reconcile`; docs/operations.md has the steps"
_UNKNOWN: Final = (
    "A database was restored, or a worker of another database uses this Redis: find out which before any repair, "
    "docs/operations.md#what-doctor-says-of-the-epoch"
)


def of_database(connection: Connection) -> Iterator[Finding]:
    """Tell of another cluster or timeline than was noted."""
    found = epoch.read(connection)
    if found.moved:
        yield Finding("warn", "epoch", "the database was moved to another cluster, as a dump", _ADVICE)
    elif not found.is_as_noted:
        message = f"the timeline was {found.noted} and is {found.timeline}: a standby took over, or a time was restored"
        advice = "See with `enrollment reconcile` whether something is lost; with --repair, it notes the timeline"
        yield Finding("warn", "epoch", message, advice)


def of_both(settings: Settings, client: Redis, key: str) -> Iterator[Finding]:
    """Tell what the database does not know of the last entries, and the stream not of the last commands.

    Where the database is away there is no answer: that is told elsewhere. Raises RedisError.
    """
    info: Any = client.xinfo_stream(key) if client.type(key) == "stream" else {}
    entries: Any = client.xrevrange(key, count=LOOKED_AT) if info else []
    with suppress(SettingsError, SQLAlchemyError):
        engine = make_engine(settings.require_database_url(), application_name="enrollment doctor")
        try:
            with engine.connect() as connection:
                yield from _compared(connection, entries, key)
                yield from _begun_anew(connection, info, key)
        finally:
            engine.dispose()


def _compared(connection: Connection, entries: list[tuple[str, Any]], key: str) -> Iterator[Finding]:
    events = [event for entry in entries if (event := entry_of(*entry).event) is not None]
    kept_from = reconciling.forgotten_before(connection)
    if unknown := lost_of(connection, [event for event in events if event.time >= kept_from]).events:
        message = f"the database does not know {number(len(unknown), 'command')} of the last {len(entries)} entries"
        yield Finding("fail", "epoch", message, _UNKNOWN)
    newest = reconciling.newest(connection)
    batches, _ = outbox.backlog(connection)
    if newest is None or batches:
        return
    if not entries:
        yield Finding("warn", "epoch", f"{key} has no entries, though commands were decided and told", _ADVICE)
    elif newest > time_of(entries[0][0]) + CLOCKS:
        message = f"{key} ends at {moment(time_of(entries[0][0]))}, though all is told that was decided up to "
        yield Finding("fail", "epoch", f"{message}{moment(newest)}", _ADVICE)


def _begun_anew(connection: Connection, info: Any, key: str) -> Iterator[Finding]:
    """Tell of a stream that lacks events though nothing was trimmed: it was deleted, and workers made another."""
    first, length = info.get("first-entry"), info.get("length")
    _, oldest = outbox.backlog(connection)
    if not first or info.get("entries-added") != length or oldest > CLOCKS.total_seconds():
        return  # what waits in the outbox for so long is not lost
    if reconciling.more(
        connection, entries=length, first=time_of(first[0]) - CLOCKS, until=datetime.now(UTC) - 2 * CLOCKS
    ):
        message = f"{key} was deleted and begun anew: it has {number(length, 'entry', 'entries')}, and more were told"
        yield Finding("warn", "epoch", message, _ADVICE)
