"""The epoch: the name of one history of the database. Where a restore ends it, cursors of before are refused.

What PostgreSQL itself tells of a restore is compared with what stands beside the epoch: the cluster, which is another
where a dump was loaded, and the timeline, which is another after a recovery to a point in time (and after each
failover). A copy of the data files, started again, has neither: only what was told of its later life shows it.
"""

import secrets
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, text

# In another cluster than the one for which it was noted, an epoch is another by itself. With `epoch` and
# `pg_control_system()` in the FROM clause.
CURRENT: Final = """CASE WHEN epoch.cluster = system_identifier THEN epoch.epoch
         ELSE (epoch.epoch # system_identifier) & 9223372036854775807 END"""
# When an epoch began that is not the first: `enrollment reconcile` began it.
BEGAN: Final = "CASE WHEN epoch.epoch <> (epoch.cluster & 9223372036854775807) THEN began_at END"
_READ: Final = text(f"""
    SELECT {CURRENT}, began_at, epoch.cluster <> system_identifier, epoch.timeline, timeline_id
      FROM epoch, pg_control_system(), pg_control_checkpoint()
""")
_NOTE: Final = text("""
    UPDATE epoch SET cluster = system_identifier, timeline = timeline_id, epoch = coalesce(:epoch, epoch),
           began_at = CASE WHEN CAST(:epoch AS bigint) IS NULL THEN began_at ELSE clock_timestamp() END
      FROM pg_control_system(), pg_control_checkpoint()
""")


class Epoch(NamedTuple):
    """The epoch now, and what PostgreSQL tells of a restore since it was noted."""

    epoch: int
    began_at: datetime
    moved: bool  # this is another cluster: a dump was loaded into it
    noted: int  # the timeline then
    timeline: int  # and now

    @property
    def is_as_noted(self) -> bool:
        """Whether neither cluster nor timeline has changed."""
        return not self.moved and self.noted == self.timeline


def read(connection: Connection) -> Epoch:
    """Return the epoch."""
    return Epoch._make(connection.execute(_READ).one())


def note(connection: Connection, *, begin: bool) -> None:
    """Note cluster and timeline as they are; with `begin`, a new epoch."""
    connection.execute(_NOTE, {"epoch": secrets.randbits(63) if begin else None})
