"""What is measured of the whole system in the database: cheap whatever the tables hold, and nothing is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, text

from models import awaited, dead_letters, deferred, feed, outbox, replication
from models.arrays import plain
from models.deferred import Waiting

TABLES: Final = (
    "commands",
    "student_courses",
    "tombstones",
    "replace_marks",
    "outbox",
    "dead_letters",
    "deferred_commands",
)

# With their partitions, where somebody made some. Rows as the last VACUUM or ANALYZE estimated them: to count 50
# million takes seconds.
_TABLES: Final = text("""
    SELECT name, sum(pg_total_relation_size(part.relid))::bigint,
           COALESCE(sum(greatest(reltuples, 0)) FILTER (WHERE relkind <> 'p'), 0)::bigint
      FROM unnest(CAST(:tables AS text[])) AS name,
           LATERAL (SELECT to_regclass(name)::oid AS relid
                     UNION SELECT relid::oid FROM pg_partition_tree(to_regclass(name))) AS part
           JOIN pg_class ON pg_class.oid = part.relid
     GROUP BY name
""")
# pg_locks, because the wait events of pg_stat_activity are hidden from other roles.
_LOCK_WAITS: Final = text("""
    SELECT count(DISTINCT pid), COALESCE(extract(epoch FROM clock_timestamp() - min(waitstart)), 0)::float
      FROM pg_locks JOIN pg_stat_activity USING (pid)
     WHERE NOT granted AND datname = current_database()
""")


_RETENTION: Final = text("SELECT removed, extract(epoch FROM passed_at)::float FROM retention")


@dataclass(frozen=True, slots=True)
class Table:
    """Bytes on disk with indexes, and about how many rows."""

    size: int
    rows: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """The state of the database. Ages and waits are in seconds, 0 where there is nothing."""

    outbox_batches: int
    outbox_age: float
    open_dead_letters: Mapping[str, int]
    deferred: Sequence[Waiting]
    tables: Mapping[str, Table]
    lock_waits: int
    longest_lock_wait: float
    waiting: awaited.Counts
    feed_behind: float
    retention_removed: int  # rows, ever
    retention_completed: float | None  # when a walk last came to its end: Unix time
    standing: replication.Standing

    @property
    def replicas(self) -> int:
        """How many standbys there are."""
        return self.standing.there

    @property
    def needed(self) -> int:
        """How many of them a commit waits for."""
        return self.standing.needed


def statistics(connection: Connection) -> Statistics:
    """Measure everything."""
    batches, age = outbox.backlog(connection)
    tables = connection.execute(_TABLES, {"tables": plain(TABLES)})
    removed, completed = connection.execute(_RETENTION).one()
    waits, longest = connection.execute(_LOCK_WAITS).one()
    return Statistics(
        outbox_batches=batches,
        outbox_age=age,
        open_dead_letters={code: letters for code, letters, _ in dead_letters.counts(connection)},
        deferred=deferred.waiting(connection),
        tables={name: Table(int(size), int(rows)) for name, size, rows in tables},
        lock_waits=waits,
        longest_lock_wait=longest,
        waiting=awaited.counts(connection, most=10),
        feed_behind=feed.behind(connection),
        retention_removed=removed,
        retention_completed=completed,
        standing=replication.standing(connection),
    )
