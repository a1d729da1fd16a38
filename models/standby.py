"""Lookups on a standby, where it has all that was committed when it is asked; else on the primary."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import Final, Self

import psycopg
from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import SQLAlchemyError

from models.engine import make_engine
from models.primary import timeline_of
from models.session import Session

LAG: Final = 0.2  # seconds that a standby is waited for; a healthy one is behind by a millisecond or so
REST: Final = 5.0  # seconds for which one is left that lags or does not answer
_POLL: Final = 0.005

_WRITTEN: Final = text("SELECT flushed::text, pg_walfile_name(flushed) FROM pg_current_wal_flush_lsn() AS flushed")
# A standby of a primary that was replaced may be at any position, of another history. What it receives is told to some
# roles only; the control file has it from the next checkpoint on.
_REPLAYED: Final = text("""
    SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= CAST(:position AS pg_lsn)
           AND greatest(timeline_id, (SELECT received_tli FROM pg_stat_wal_receiver)) >= :timeline
      FROM pg_control_checkpoint()
""")


class Standby:
    """A standby beside the primary.

    Whoever was told of a commit, by whatever way, finds it: the primary says how far it has written, which costs it
    next to nothing, and the standby is asked once it is that far.
    """

    def __init__(self, engine: Engine, primary: Engine) -> None:
        """Take connections to both that commit by themselves."""
        self._engine, self._primary = engine, primary
        self._not_before = 0.0

    @classmethod
    def beside(
        cls, primary: Engine, url: str | Callable[[], str], *, application_name: str, pool_size: int = 1
    ) -> Self:
        """Return the standby at `url`. Nothing is connected yet. Raises ValueError for what libpq does not read."""
        engine = make_engine(url, application_name=application_name, pool_size=pool_size, reading=True)
        return cls(engine.execution_options(isolation_level="AUTOCOMMIT"), primary)

    def connect(self) -> Connection | None:
        """Return a connection to the standby, for lookups that begin now; None: ask the primary.

        Raises what the primary raises.
        """
        if monotonic() < self._not_before:
            return None
        if self._not_before:  # one tries, the others go on
            self.leave()
        with self._primary.connect() as connection:
            position, segment = connection.execute(_WRITTEN).one()
        try:
            connection = self._engine.connect()
        except SQLAlchemyError:
            self.leave()
            return None
        if self._reaches(connection, position, timeline_of(segment)):
            self._not_before = 0.0
            return connection
        connection.close()
        self.leave()
        return None

    def leave(self) -> None:
        """Ask the primary for some seconds: a lookup failed here."""
        self._not_before = monotonic() + REST
        self._engine.dispose()  # of several standbys, another one may be found

    def close(self) -> None:
        """Hang up."""
        self._engine.dispose()

    def _reaches(self, connection: Connection, position: str, timeline: int) -> bool:
        session = connection.connection.driver_connection
        assert isinstance(session, Session)  # noqa: S101 (models.engine makes no others)
        until = monotonic() + LAG
        session.quiet = _give_up
        try:
            asked = {"position": position, "timeline": timeline}
            while not (there := connection.scalar(_REPLAYED, asked)) and monotonic() < until:
                sleep(_POLL)
        except SQLAlchemyError:
            return False
        finally:
            session.quiet = None
        return bool(there)


def _give_up() -> None:
    raise psycopg.OperationalError("the standby does not answer")
