"""What is counted and logged of a transaction right after its commit, and how its stages are timed."""

import logging
from time import monotonic, time
from typing import Any, Final

import structlog
from sqlalchemy import Connection

from enrollment.errors import DeadLetterCode
from enrollment.fold import Record
from enrollment.parsing import Unidentified
from enrollment.traces import trace_id_of
from tasks.batch import EventRelay
from tasks.messages import Unit
from tasks.transaction import Committed, Failed, Result
from worker import metrics

log = structlog.get_logger(__name__)
_stdlib: Final = logging.getLogger(__name__)


class Observed:
    """Stands before the relay, which hears of each commit first."""

    def __init__(self, relay: EventRelay) -> None:
        self._relay = relay
        self._claimed = monotonic()

    def begins(self) -> None:
        """Note that a batch begins."""
        self._claimed = monotonic()

    def publish(self, connection: Connection, batch: Committed) -> None:
        """Publish the events of the transaction that was committed just now, and measure it."""
        committed, now = monotonic(), time()
        self._relay.publish(connection, batch)  # first: somebody waits for it
        metrics.staged("transaction", batch.decided_at - batch.begun)
        metrics.staged("commit", committed - batch.decided_at)
        metrics.committed(batch, at=now, claimed=committed - self._claimed)
        match batch.decided:  # what could not be processed is alone in its transaction
            case ((unit, Failed()),):
                log.warning("dead_letter", key=unit.message.task_id, code=DeadLetterCode.PROCESSING_FAILED)
        if _stdlib.isEnabledFor(logging.DEBUG):  # structlog would build each line before the level is looked at
            for unit, result in batch.decided:
                log.debug("command_processed", batch_id=str(batch.batch_id), **_shown(unit, result))

    def mark_backlog(self) -> None:
        """Pass on that the outbox may hold something."""
        self._relay.mark_backlog()


def _shown(unit: Unit, result: Result) -> dict[str, Any]:
    request = unit.request
    if isinstance(request, Unidentified):
        return {"outcome": "dead_letter", "code": request.code}
    said: dict[str, Any] = {"command_id": str(request.command_id), "command": request.command, "source": request.source}
    if trace_id := trace_id_of(unit.message.headers):
        said["trace_id"] = trace_id
    if isinstance(result, Record):
        codes = [error.code for error in result.errors]
        return {**said, "student_id": result.student_id, "outcome": result.outcome, "codes": codes}
    return {**said, "outcome": type(result).__name__.lower()}
