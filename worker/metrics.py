"""What a worker process measures of itself, for Prometheus. docs/metrics.md lists every name.

Labels are bounded: kinds, outcomes and codes are closed sets, sources are the first hundred, and no id is ever a label.
Each process serves its own numbers, so `PROMETHEUS_MULTIPROC_DIR` is not needed.
"""

import errno
import socket
from collections import Counter as Count
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic, time
from typing import Any, Final, Literal, get_args
from uuid import UUID

import structlog
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from enrollment.commands import Withdraw
from enrollment.errors import DeadLetterCode
from enrollment.fold import Record, Repeat, Reused
from enrollment.parsing import Unidentified
from tasks.deferring import PutOff
from tasks.messages import Unit
from tasks.transaction import Committed, Failed, Result
from worker.histogram import BatchHistogram

SOURCES: Final = 100  # distinct values of the label `source` in one process; what comes later is "other"
PORTS: Final = 100  # ports that are tried, from the one that is set upwards
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 86400)
_SHORT: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_COUNTS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)

Server = Literal["database", "broker", "stream"]
Stage = Literal["transaction", "commit", "publish", "acknowledge"]

log = structlog.get_logger(__name__)

disable_created_metrics()  # type: ignore[no-untyped-call]  # else each counter is two series
registry: Final = CollectorRegistry()
ProcessCollector(registry=registry)
PlatformCollector(registry=registry)

_commands: Final = Counter(
    "enrollment_worker_commands",
    "Commands processed; `code` is that of the first error.",
    ["command", "outcome", "code", "source"],
    registry=registry,
)
_last_command: Final = Gauge(
    "enrollment_worker_source_last_command_timestamp_seconds",
    "When this process last committed a command of a source, Unix time.",
    ["source"],
    registry=registry,
)
_messages: Final = Histogram(
    "enrollment_worker_batch_messages", "Messages in a batch.", buckets=_COUNTS, registry=registry
)
_batch_commands: Final = Histogram(
    "enrollment_worker_transaction_commands", "Commands in a transaction.", buckets=_COUNTS, registry=registry
)
_batch_seconds: Final = Histogram(
    "enrollment_worker_batch_seconds",
    "Seconds from a claim to its acknowledgement, waits included.",
    buckets=_SHORT,
    registry=registry,
)
_stages: Final = Histogram(
    "enrollment_worker_stage_seconds",
    "Seconds per batch or transaction: transaction (lock, read, decide), commit (write, commit), publish, acknowledge.",
    ["stage"],
    buckets=_SHORT,
    registry=registry,
)
_issued: Final = BatchHistogram(
    "enrollment_worker_issued_to_commit_seconds",
    "Seconds from `issued_at` to the commit, of commands that say it.",
    buckets=_SECONDS,
    registry=registry,
)
_sent: Final = BatchHistogram(
    "enrollment_worker_sent_to_commit_seconds",
    "Seconds from the time in the command id to the commit, of ids of version 7.",
    buckets=_SECONDS,
    registry=registry,
)
_claimed: Final = BatchHistogram(
    "enrollment_worker_claim_to_commit_seconds",
    "Seconds from the claim to the commit, of every command.",
    buckets=_SECONDS,
    registry=registry,
)
_published: Final = BatchHistogram(
    "enrollment_worker_commit_to_event_seconds",
    "Seconds from the commit time of an event to its entry on the stream.",
    buckets=_SECONDS,
    registry=registry,
)
_redelivered: Final = Counter(
    "enrollment_worker_redelivered_messages", "Messages claimed again from a worker that held them.", registry=registry
)
_dead_letters: Final = Counter(
    "enrollment_worker_refused_messages", "Messages that became dead letters unread.", ["code"], registry=registry
)
_waits: Final = Counter(
    "enrollment_worker_wait_seconds", "Seconds lost while a server was away.", ["on"], registry=registry
)
_warnings: Final = Counter(
    "enrollment_worker_warnings", "Warnings and errors logged, by the name of the event.", ["event"], registry=registry
)
_progress: Final = Gauge(
    "enrollment_worker_last_progress_timestamp_seconds",
    "When this process last took or finished work, or found none waiting, Unix time.",
    registry=registry,
)
_of_stage: Final = {name: _stages.labels(name) for name in get_args(Stage)}
for _server in ("database", "broker", "stream"):
    _waits.labels(_server)  # a series from the start: `increase` sees the first of its seconds

_sources: Final[set[str]] = set()


def committed(batch: Committed, *, at: float, claimed: float) -> None:
    """Count what one transaction decided, committed `at` this Unix time, `claimed` seconds after its messages were."""
    units = batch.decided
    for labels, count in Count(_labels(unit, result) for unit, result in units).items():
        _commands.labels(*labels).inc(count)
        _last_command.labels(labels[3]).set_to_current_time()
    # Not of those that waited for their time or the catalog: that tells nothing of the system.
    requests = [
        unit.request
        for unit, _ in units
        if not isinstance(unit.request, Unidentified | Withdraw) and (unit.kept is None or not unit.kept.told)
    ]
    _issued.observe([at - request.issued_at.timestamp() for request in requests if request.issued_at is not None])
    _sent.observe([at - sent for request in requests if (sent := sent_at(request.command_id)) is not None])
    _claimed.observe_same(claimed, len(units))
    _batch_commands.observe(len(units))


def published(records: Sequence[Record]) -> None:
    """Note that the events of these are on the stream."""
    if records:
        _published.observe_same(time() - records[0].processed_at.timestamp(), len(records))


def batch(messages: int, seconds: float) -> None:
    """Count a batch that is done."""
    _messages.observe(messages)
    _batch_seconds.observe(seconds)


def redelivered(fresh: Iterable[bool]) -> None:
    """Count the claims among these that are not the first of their message."""
    if count := sum(not each for each in fresh):
        _redelivered.inc(count)


def refused(code: DeadLetterCode) -> None:
    """Count a message that became a dead letter before it could be a command."""
    _dead_letters.labels(code).inc()


def warned(event: Mapping[str, Any]) -> None:
    """Count a line of the log, whose name is a constant of the code; one tells of the pause that follows."""
    _warnings.labels(event["event"]).inc()
    if event["event"] == "waiting_for_database":
        waited("database", event.get("seconds", 0.0))


def progressed() -> None:
    """Note that work was taken or finished, or that none waits."""
    _progress.set_to_current_time()


def staged(name: Stage, seconds: float) -> None:
    """Note how long a stage took."""
    _of_stage[name].observe(seconds)


@contextmanager
def stage(name: Stage) -> Iterator[None]:
    """Time a stage, unless it fails."""
    begin = monotonic()
    yield
    staged(name, monotonic() - begin)


def waited(on: Server, seconds: float) -> None:
    """Count time that was lost to a server that is away."""
    _waits.labels(on).inc(seconds)


@contextmanager
def waiting(on: Server) -> Iterator[None]:
    """Count the time that is lost to a server that is away."""
    begin = monotonic()
    try:
        yield
    finally:
        waited(on, monotonic() - begin)


def sent_at(command_id: UUID) -> float | None:
    """Return the Unix time in an id of version 7 (RFC 9562, 5.7): nothing else in a message says when it was sent."""
    value = command_id.int
    return (value >> 80) / 1000 if (value >> 76) & 0xF == 7 else None  # noqa: PLR2004


def serve(host: str, port: int, *, towards: str | None = None) -> str | None:
    """Serve on the first free port from `port` upwards (0: any); return the address to scrape, None if there is none.

    Where `host` is all interfaces, the address is the one by which this machine reaches the host `towards`.
    """
    for candidate in range(port, port + (PORTS if port else 1)):
        try:
            server, _ = start_http_server(candidate, host, registry)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                continue
            raise
        address = f"{_reachable(host, towards)}:{server.server_port}"
        log.info("metrics_served", address=address)
        return address
    log.warning("metrics_not_served", host=host, first=port, last=port + PORTS - 1)
    return None


def _reachable(host: str, towards: str | None) -> str:
    if host not in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not listened on
        return f"[{host}]" if ":" in host else host
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((towards or "localhost", 9))  # sends nothing; it only chooses the way
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()


def _labels(unit: Unit, result: Result) -> tuple[str, str, str, str]:
    request = unit.request
    if type(result) is Record:
        code = result.errors[0].code if result.errors else ""
        return result.command or "", result.outcome, code, _source(result.source)
    if isinstance(request, Unidentified):
        return "", "dead_letter", request.code, ""
    return request.command or "", *_outcome(result), _source(request.source)


def _outcome(result: Result) -> tuple[str, str]:
    match result:
        case Repeat():
            return "repeat", ""
        case Reused():
            return "dead_letter", DeadLetterCode.COMMAND_ID_REUSED
        case PutOff():
            return "put_off", ""
        case Failed():
            return "dead_letter", DeadLetterCode.PROCESSING_FAILED
        case _:
            raise AssertionError(result)


def _source(source: str | None) -> str:
    if source is None or source in _sources:
        return source or ""
    if len(_sources) >= SOURCES:
        return "other"
    _sources.add(source)
    return source
