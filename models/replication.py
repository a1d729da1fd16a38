"""What a standby has of it. A synchronous one has every commit before anybody is told."""

import re
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Engine, text

from models.db_errors import Moved
from models.direct import ask

# What was read may be on this server only: its commit was cancelled while it waited, or the server was killed in
# between, and shows it since. Whoever acts on that waits first. A row that is written would do the same.
_CONFIRM: Final = text("""
    SELECT pg_logical_emit_message(true, 'enrollment', '') WHERE current_setting('synchronous_standby_names') <> ''
""")
_STANDING: Final = text("""
    SELECT pg_is_in_recovery(), current_setting('synchronous_standby_names'), current_setting('synchronous_commit'),
           count(*), count(sync_state), count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')),
           COALESCE(extract(epoch FROM max(replay_lag)), 0)::float
      FROM pg_stat_replication
""")
_SINCE: Final = text("SELECT pg_postmaster_start_time()")  # no two servers have the same
_NUMBER: Final = re.compile(r"\s*(?:(?:ANY|FIRST)\s+)?(\d+)\s*\(", re.IGNORECASE)  # of synchronous_standby_names
_SYNCHRONOUS: Final = text("SELECT current_setting('synchronous_standby_names') <> ''")


def confirm(connection: Connection) -> None:
    """Let the commit wait until the standby has all that was read, although nothing was written.

    Does nothing where replication is not synchronous.
    """
    ask(connection, _CONFIRM, {})


def confirm_apart(engine: Engine, connection: Connection) -> None:
    """Wait until the standby has all that was read on `connection`, whose transaction goes on. Raises Moved."""
    if not connection.scalar(_SYNCHRONOUS):
        return
    with engine.begin() as own:
        if own.scalar(_SINCE) != connection.scalar(_SINCE):  # else the wait would say nothing of what was read
            raise Moved
        confirm(own)


@dataclass(frozen=True, slots=True)
class Standing:
    """How a server replicates, as far as the asking role may see it."""

    standby: bool  # it is one itself
    wanted: str  # synchronous_standby_names
    level: str  # synchronous_commit
    connected: int  # standbys, and whatever else takes the log
    seen: int  # of these, whose state the role may see
    synchronous: int  # of these, for how many commits wait
    lag: float = 0.0  # seconds until the slowest of these shows a commit; 0 where nothing is written, or may be seen

    @property
    def needed(self) -> int:
        """How many standbys a commit waits for."""
        number = _NUMBER.match(self.wanted)
        return int(number[1]) if number else int(bool(self.wanted.strip()))

    @property
    def there(self) -> int:
        """How many standbys there are; where a commit waits for some, of those for which it may wait."""
        return self.synchronous if self.needed and self.seen else self.connected


def standing(connection: Connection) -> Standing:
    """Return how the server replicates."""
    return Standing(*connection.execute(_STANDING).one())
