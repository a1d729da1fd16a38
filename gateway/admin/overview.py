"""What the overview shows: how things are now, what happened lately, and which trouble there is.

All of it is kept for some seconds, however many people look, and longer where it took longer: what is asked for here
costs a server a twentieth of its time at most. (Most of the time of the findings is a wait for answers.)
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from time import monotonic
from typing import Any, Final, Generic, TypeVar

import structlog
from anyio import to_thread
from fastapi import Request
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError
from sqlalchemy.exc import SQLAlchemyError

from gateway.dependencies import Gateway, held_by
from models import activity
from models.activity import WINDOWS, Activity
from models.db_errors import describe
from models.statistics import Statistics, statistics
from worker import brokers, checks, streams
from worker.brokers import Depths
from worker.health import Finding
from worker.streams import StreamState

EVERY: Final = 4.0  # seconds that an answer is kept at least
FINDINGS_EVERY: Final = 15.0  # the same of `doctor`, which asks all workers
WAITED: Final = 60.0  # seconds after which a message that waits is trouble, as in deploy/prometheus/alerts.yml
PATIENCE: Final = 2.5  # seconds that a page waits for an answer; then it shows the one before
OLD: Final = 60.0  # seconds since an answer was due, at least, after which it is not shown any more
_COST: Final = 20  # times what it took, an answer is kept
_AWAY: Final = (SQLAlchemyError, RedisError, OperationalError, OSError)

# Where trouble of a kind is mended: a page, or the section of the runbook.
PLACES: Final[Mapping[str, tuple[str, str]]] = {
    "dead letters": ("/admin/dead-letters", "Decide about them"),
    "catalog": ("/admin/imports", "Import the catalog"),
    "migrations": ("/admin/runbook#start-stop-scale-drain-upgrade", "How to upgrade"),
    "outbox": ("/admin/runbook#enrollmentoutboxold", "What helps"),
    "epoch": ("/admin/runbook#what-doctor-says-of-the-epoch", "What helps"),
    "locks": ("/admin/runbook#enrollmentlockwaits", "What helps"),
    "feed": ("/admin/runbook#enrollmentfeedstandsstill", "What helps"),
    "replication": ("/admin/runbook#enrollmentreplicamissing", "What helps"),
    "servers": ("/admin/runbook#failover-of-postgresql", "What helps"),
    "lookups": ("/admin/runbook#enrollmentreplicamissing", "What helps"),
    "versions": ("/admin/runbook#start-stop-scale-drain-upgrade", "How to upgrade"),
    "workers": ("/admin/runbook#enrollmentnoworker", "What helps"),
    "queues": ("/admin/runbook#enrollmentbacklogold", "What helps"),
}
SETTING: Final = ("/admin/runbook#setting", "What helps")
ELSEWHERE: Final = ("/admin/runbook#enrollmentserveraway", "What helps")

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Kept(Generic[T]):
    """An answer that is kept for a while; None: none is recent, or a server is away. Asked for once at a time."""

    least: float = EVERY
    cost: float = _COST
    _found: T | None = None
    _until: float = 0.0
    _old: float = 0.0
    _asking: asyncio.Task[None] | None = None

    async def get(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Return what is kept; ask anew where it is old, and wait a moment for that."""
        if monotonic() >= self._until and (self._asking is None or self._asking.done()):
            self._asking = asyncio.create_task(self._ask(ask))
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=PATIENCE)
        return self._found if monotonic() < self._old else None

    async def _ask(self, ask: Callable[[], Awaitable[T]]) -> None:
        begin = monotonic()
        try:
            self._found = await ask()
        except _AWAY as error:  # which server it is, the findings say
            log.info("overview_incomplete", error=describe(error))
            self._found = None
        took = monotonic() - begin
        self._until = monotonic() + max(self.least, self.cost * took)
        self._old = self._until + max(OLD, 3 * took)


@dataclass(frozen=True, slots=True)
class Shown:
    """What a page shows; None is what is not known while a server is away."""

    at: datetime
    window: str
    findings: Sequence[Finding] | None
    activity: Activity | None
    now: Statistics | None
    depths: Depths | None
    stream: StreamState | None

    @property
    def trouble(self) -> Sequence[Finding]:
        """What is not well, the worst first."""
        late = [] if self.depths is None else list(_late(self.depths))
        found = [finding for finding in (*(self.findings or ()), *late) if finding.status != "ok"]
        return sorted(found, key=lambda finding: finding.status != "fail")


class Overview:
    """Asks the servers for what the page shows. One per process."""

    def __init__(self, gateway: Gateway) -> None:
        settings = gateway.settings
        self._gateway = gateway
        known_by = settings.transport_options().get("credential_provider")
        self._broker = brokers.watch(settings.require_broker_url(), settings.broker_options, known_by)
        credentials = settings.events_credentials()
        self._stream = streams.watch(settings.require_events_url(), settings.events_stream, credentials)
        self._activity: dict[str, Kept[Activity]] = {name: Kept() for name in WINDOWS}
        self._share = dict.fromkeys(WINDOWS, 1.0)
        self._findings: Kept[list[Finding]] = Kept(
            FINDINGS_EVERY, cost=1
        )  # most of it is waiting for the workers to answer
        self._now: Kept[Statistics] = Kept()
        self._depths: Kept[Depths] = Kept()
        self._entries: Kept[StreamState] = Kept()

    def close(self) -> None:
        """Hang up."""
        self._broker.close()
        self._stream.close()

    async def show(self, window: str) -> Shown:
        """Return what there is to show."""
        findings, happened, now, depths, entries = await asyncio.gather(
            self._findings.get(lambda: to_thread.run_sync(self._find, abandon_on_cancel=True)),
            self._activity[window].get(lambda: self._happened(window)),
            self._now.get(lambda: self._gateway.read(statistics)),
            self._depths.get(lambda: to_thread.run_sync(self._broker.depths, abandon_on_cancel=True)),
            self._entries.get(lambda: to_thread.run_sync(self._stream.state, abandon_on_cancel=True)),
        )
        return Shown(datetime.now(UTC), window, findings, happened, now, depths, entries)

    async def _happened(self, window: str) -> Activity:
        found = await self._gateway.read(activity.activity, WINDOWS[window], share=self._share[window])
        self._share[window] = min(1.0, 4 * found.share)  # of a window that has less again, more is looked at
        return found

    def _find(self) -> list[Finding]:
        return list(checks.findings(self._gateway.settings))


def _late(depths: Depths) -> Any:
    for name, queue in depths.queues.items():
        if (queue.oldest or 0) > WAITED:
            message = f"{queue.messages:,} wait in {name}, the oldest for {queue.oldest:.0f} s"
            advice = "See that workers run and take from it; start more of them where the rate is above what they do"
            yield Finding("warn", "queues", message, advice)


def place_of(finding: Finding) -> tuple[str, str]:
    """Return where trouble is mended, and the words of the link."""
    return PLACES.get(finding.name) or (SETTING if finding.advice.startswith("Set ") else ELSEWHERE)


def overview_of(request: Request) -> Overview:
    """Return the overview of this process."""
    state = request.app.state
    if not hasattr(state, "admin_overview"):
        state.admin_overview = Overview(held_by(request))
    found: Overview = state.admin_overview
    return found
