"""Retention at work: steps so small that no batch notices, for a moment at a time."""

from time import monotonic
from typing import Final

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from models import retention
from models.db_errors import describe, is_locked, is_outage

ROWS: Final = 500  # looked at in a step: some milliseconds
BUDGET: Final = 0.2  # seconds of a worker, whose commands wait meanwhile

log = structlog.get_logger(__name__)


def retain(engine: Engine, days: int, *, budget: float = BUDGET, at_once: bool = False) -> int:
    """Go on for about `budget` seconds; return the rows removed. What an outage or a lock stops goes on next time."""
    until = monotonic() + budget
    removed = 0
    try:
        while monotonic() < until:
            with engine.begin() as connection:
                step = retention.step(connection, days, ROWS, at_once=at_once)
            if step is None or step.done:
                break
            removed += step.removed
    except DBAPIError as error:
        if not (is_outage(error) or is_locked(error)):
            raise
        log.warning("retention_waits", error=describe(error))
    if removed:
        log.info("retention_removed", rows=removed)
    return removed
