"""Rows of imports that wait for the catalog: sent when it was loaded, or by who watches a folder."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from enrollment.client import Client
from enrollment.errors import EnrollmentError
from models import import_waits
from models.db_errors import describe
from tasks.imports import run
from worker.cli.connect import client_of_broker
from worker.cli.output import note, whoami

PATIENCE: Final = 30.0  # seconds for a broker that is away
_SETTLE: Final = 10.0  # seconds without any outcome after which nobody waits any more
_EVERY: Final = 5.0  # seconds from look to look
_REST: Final = 29  # so many times as long as it took, a pause is
_LONGEST: Final = 60.0  # seconds; a broker that was away is looked for again soon


def take_up_others(engine: Engine, client: Client) -> list[int]:
    """Send the rows of all imports that are due; return those that wait for outcomes. What is in the way is said."""
    with _told():
        return run.take_up(engine, client.bulk(), by=whoami())
    return []


class TakingUp:
    """Looks for rows that wait no longer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._from = 0.0

    def now_and_then(self) -> None:
        """Do it `now`, if it was not done a moment ago."""
        begin = monotonic()
        if begin >= self._from:
            self.now(patience=0)  # what has no outcome yet is looked at again the next time
            self._from = max(begin + _EVERY, monotonic() + min(_REST * (monotonic() - begin), _LONGEST))

    def now(self, *, patience: float = _SETTLE) -> None:
        """Send the rows that are due, and wait for their outcomes. What keeps them from being sent is said."""
        with _told():
            with self._engine.connect() as connection:
                if not import_waits.imports(connection):
                    return
            with client_of_broker(patience=PATIENCE) as client:
                taken = run.take_up(self._engine, client.bulk(), by=whoami())
            run.settle_others(self._engine, taken, patience=patience)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (EnrollmentError, SQLAlchemyError) as error:
        note(f"Rows of imports that wait for the catalog wait on: {describe(error)}")
