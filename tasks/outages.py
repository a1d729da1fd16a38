"""Waiting for a database that is away."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import Final

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_never,
    wait_exponential_jitter,
)

from models.db_errors import describe, is_locked, is_outage
from models.session import meanwhile
from tasks.caution import Blocked

# Seconds between attempts while the database is away. Work goes on within 5 of its return: an attempt may last 2 more,
# where of several hosts one hangs.
LONGEST_PAUSE: Final = 2.0
PULSE: Final = 1.0  # seconds between signs of life while a batch is applied or waits

log = structlog.get_logger(__name__)


def retry_on_outage(
    engine: Engine,
    attempt: Callable[[], None],
    keep_alive: Callable[[], None],
    failed: Callable[[], None],
    *,
    once: bool = False,
) -> None:
    """Make an attempt until the database is there; `failed` is called after each that failed.

    `keep_alive` is called about every second, whether an answer or a server is waited for. Raises what it raises, and
    Blocked; with `once`, the outage.
    """
    failures: list[Exception] = []

    def again() -> None:
        if failures:
            raise failures.pop()
        attempt()

    def pause(seconds: float) -> None:
        until = monotonic() + seconds
        while (remaining := until - monotonic()) > 0:
            keep_alive()
            sleep(min(1.0, remaining))
        engine.dispose()  # a failed-over server is found by a new connection only
        keep_alive()

    try:
        with meanwhile(keep_alive):
            try:
                attempt()
            except Exception as error:  # noqa: BLE001 - it is judged below
                failures.append(error)
            else:  # as nearly always: what follows takes longer than a command's share of a batch
                return
            Retrying(
                retry=retry_if_exception(lambda error: is_outage(error) and not is_locked(error)),
                wait=wait_exponential_jitter(multiplier=0.1, max=LONGEST_PAUSE, jitter=0.5),
                stop=stop_after_attempt(1) if once else stop_never,
                after=lambda _: failed(),
                before_sleep=_tell,
                sleep=pause,
                reraise=True,
            )(again)
    except DBAPIError as error:
        if is_locked(error):
            raise Blocked from error
        raise


def _tell(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    seconds = round(state.next_action.sleep, 1) if state.next_action else 0
    reason = describe(error) if error else ""
    log.warning("waiting_for_database", error=reason, attempt=state.attempt_number, seconds=seconds)


def every_second(keep_alive: Callable[[], None]) -> Callable[[], None]:
    """Return what calls `keep_alive` when the last call, or at first this one, was a second ago."""
    last = monotonic()

    def call() -> None:
        nonlocal last
        if monotonic() - last >= PULSE:
            keep_alive()
            last = monotonic()

    return call
