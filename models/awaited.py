"""Commands that wait for their time, or for a student or course: which of them wait no longer.

Times are found by an index; of students and courses that are waited for, a block of an index at a time is compared with
the catalog. Many commands for one of them count as one block.
"""

from collections.abc import Collection
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, text

from enrollment.fold import WITHDRAWN, Effects, Outcome, Record
from enrollment.state import BEFORE_ALL
from models.arrays import plain
from models.deferred import COLUMNS, Deferred, Reason, Wait, deferred_of
from models.records import RECORD_COLUMNS, record_of
from models.student_locks import PATIENCE

_AWAITED: Final = "reason IN ('time', 'unknown_course', 'unknown_student')"  # as the index has it
_OVER: Final = text(f"""
    SELECT {COLUMNS} FROM deferred_commands
     WHERE {_AWAITED} AND until <= clock_timestamp() ORDER BY until LIMIT :most FOR UPDATE SKIP LOCKED
""")
_NEXT: Final = text(f"""
    SELECT extract(epoch FROM until - clock_timestamp())::float FROM deferred_commands
     WHERE {_AWAITED} ORDER BY until LIMIT 1
""")
# In blocks of commands: one student or course each, or many commands for one. A block begins where the table of the
# catalog has an id at all, so what lies beyond its last one takes no time. Its ids are looked up together, in their
# order, by the primary key.
_LOOK: Final = """
      WITH RECURSIVE block AS (
           SELECT 0 AS number, CAST(:after AS bigint) AS last, CAST(NULL AS bigint[]) AS ids
           UNION ALL
           SELECT number + 1, next.last, next.ids FROM block CROSS JOIN LATERAL (
                  SELECT max(waits_for) AS last, array_agg(waits_for) AS ids
                    FROM (SELECT DISTINCT waits_for
                            FROM (SELECT waits_for FROM deferred_commands AS d
                                   WHERE d.reason = :reason AND d.waits_for >= (
                                         SELECT id FROM {table} AS t WHERE t.id > block.last ORDER BY t.id LIMIT 1)
                                   ORDER BY d.reason, d.waits_for LIMIT 64) AS commands) AS waits) AS next
            WHERE block.last IS NOT NULL AND number < :blocks),
           looked AS (
           SELECT number, last, ARRAY(SELECT t.id FROM {table} AS t WHERE t.id = ANY(ids)) AS there FROM block)
    SELECT number, last, there FROM looked WHERE there <> '{{}}' OR number = :blocks ORDER BY number
"""
_LOOKS: Final = {
    Reason.UNKNOWN_COURSE: text(_LOOK.format(table="courses")),
    Reason.UNKNOWN_STUDENT: text(_LOOK.format(table="students")),
}

# What is being decided at this moment is waited for; not for long: its worker may be frozen.
_LOCK_TIMEOUT: Final = text(f"SET LOCAL lock_timeout = '{PATIENCE}ms'")
_LOCK: Final = text(f"""
    SELECT {COLUMNS} FROM deferred_commands WHERE command_id = ANY(CAST(:commands AS uuid[])) ORDER BY id FOR UPDATE
""")
_FORGOTTEN: Final = text("""
    SELECT command_id, content_hash FROM forgotten_commands WHERE command_id = ANY(CAST(:commands AS uuid[]))
""")
_RECORDS: Final = text(f"SELECT {RECORD_COLUMNS} FROM commands WHERE command_id = ANY(CAST(:commands AS uuid[]))")


# Counted when a session has nothing to do, within seconds after its commit; of a partitioned table, by its partitions.
_ADDED: Final = text("""
    SELECT sum(pg_stat_get_tuples_inserted(part.relid))::bigint
      FROM (VALUES ('students'), ('courses')) AS t(name),
           LATERAL (SELECT to_regclass(name) AS relid
                     UNION SELECT relid FROM pg_partition_tree(to_regclass(name))) AS part
""")


class Looked(NamedTuple):
    """One step through what is waited for: what of it is there now, and where to go on; None: that was all."""

    there: list[Wait]
    last: Wait | None


def over(connection: Connection, most: int) -> list[Deferred]:
    """Return up to `most` commands whose time has come, or whose wait is over, the earliest first; they are locked."""
    return list(map(deferred_of, connection.execute(_OVER, {"most": most})))


def next_over(connection: Connection) -> float | None:
    """Return in how many seconds the next command's time comes, or its wait is over; None: none waits."""
    seconds: float | None = connection.execute(_NEXT).scalar_one_or_none()
    return seconds


def look(connection: Connection, after: Wait | None, blocks: int) -> Looked:
    """Look whether students or courses are there that commands wait for, beginning after `after`: up to so many blocks.

    A block is 64 commands. Courses are looked at first; one look is at one of the two tables.
    """
    reason, id_ = after or Wait(Reason.UNKNOWN_COURSE, 0)
    found = connection.execute(_LOOKS[reason], {"reason": reason, "after": id_, "blocks": blocks}).all()
    there = [Wait(reason, it) for _, _, ids in found for it in ids]
    if found and found[-1].number == blocks and found[-1].last is not None:
        return Looked(there, Wait(reason, found[-1].last))
    return Looked(there, Wait(Reason.UNKNOWN_STUDENT, 0) if reason is Reason.UNKNOWN_COURSE else None)


def added(connection: Connection) -> int:
    """Return a number that rises soon after students or courses were added; a hint, and no more."""
    number: int | None = connection.execute(_ADDED).scalar_one()
    return number or 0


def lock(connection: Connection, command_ids: Collection[UUID]) -> list[Deferred]:
    """Lock those of these commands that wait, and return them. Raises what `is_locked` tells."""
    connection.execute(_LOCK_TIMEOUT)
    return list(map(deferred_of, connection.execute(_LOCK, {"commands": plain(command_ids)})))


def records(connection: Connection, command_ids: Collection[UUID]) -> list[Record]:
    """Return what is known of those of these commands that are there."""
    return list(map(record_of, connection.execute(_RECORDS, {"commands": plain(command_ids)})))


def forgotten(connection: Connection, command_ids: Collection[UUID]) -> list[Record]:
    """Return what is left of those of these commands that retention has removed: that they were decided."""
    found = connection.execute(_FORGOTTEN, {"commands": plain(command_ids)})
    return [_forgotten(command_id, content) for command_id, content in found]


def _forgotten(command_id: UUID, content: bytes) -> Record:
    outcome: Outcome = "withdrawn" if content == WITHDRAWN else "applied"  # or rejected: not known any more
    return Record(command_id, None, None, None, None, None, outcome, Effects(), (), BEFORE_ALL.issued_at, content)


class AwaitedCommand(NamedTuple):
    """A command that waits, as a list shows it: `reason` and `waits_for` are what it is kept under now."""

    id: int
    command_id: UUID
    reason: Reason
    waits_for: int
    student_id: int | None
    until: datetime
    first_seen: datetime


class Share(NamedTuple):
    """How many commands wait for one student or course."""

    reason: Reason
    id: int
    commands: int


class Counts(NamedTuple):
    """How many commands wait by reason, and for which students and courses the most do. Up to `COUNTED` are counted."""

    commands: dict[Reason, int]
    shares: list[Share]

    @property
    def is_cut(self) -> bool:
        """Whether more may wait than were counted."""
        return max(self.commands.values()) >= COUNTED


COUNTED: Final = 100_000  # of each reason; some 20 ms
OFTEN: Final = 5  # ids
_LIST: Final = text(f"""
    SELECT id, command_id, reason, waits_for, student_id, until, first_seen FROM deferred_commands
     WHERE {_AWAITED} AND id > CAST(:after AS bigint)
       AND (CAST(:reason AS text) IS NULL OR (reason, waits_for) = (:reason, CAST(:waits_for AS bigint)))
     ORDER BY id LIMIT CAST(:limit AS bigint)
""")
_COUNTS: Final = text(f"""
    SELECT reason, (SELECT count(*) FROM (SELECT FROM deferred_commands AS d WHERE d.reason = r.reason
                                           LIMIT {COUNTED}) AS counted)
      FROM unnest(ARRAY['time', 'unknown_course', 'unknown_student']) AS r(reason)
""")
# Of the first in the order of the index all; of those behind them, what ANALYZE saw most often is counted one by one.
_SHARES: Final = text(f"""
      WITH counted AS (
           SELECT reason, waits_for, count(*) AS commands
             FROM (SELECT reason, waits_for FROM deferred_commands WHERE reason > 'time'
                    ORDER BY reason, waits_for LIMIT {2 * COUNTED}) AS first
            GROUP BY reason, waits_for
            UNION ALL
           SELECT reason, id, (SELECT count(*) FROM (SELECT FROM deferred_commands AS d
                                                      WHERE (d.reason, d.waits_for) = (r.reason, often.id)
                                                      LIMIT {COUNTED}) AS those)
             FROM pg_stats CROSS JOIN unnest((most_common_vals::text::bigint[])[1:{OFTEN}]) AS often(id)
            CROSS JOIN unnest(ARRAY['unknown_course', 'unknown_student']) AS r(reason)
            WHERE schemaname = ANY(current_schemas(false))
              AND (tablename, attname) = ('deferred_commands', 'waits_for'))
    SELECT reason, waits_for, max(commands) AS commands FROM counted WHERE commands > 0
     GROUP BY reason, waits_for ORDER BY commands DESC, reason, waits_for LIMIT :most
""")
# A command that waits for its time is left: its stamp would be in the future.
_RELEASE: Final = text("""
    UPDATE deferred_commands SET until = clock_timestamp()
     WHERE reason > 'time' AND (command_id = ANY(CAST(:commands AS uuid[]))
                                OR (reason, waits_for) = (:reason, CAST(:waits_for AS bigint)))
""")


def page(connection: Connection, *, of: Wait | None = None, after: int = 0, limit: int = 100) -> list[AwaitedCommand]:
    """Return commands that wait for their time or the catalog, in order of `id`; with `of`, for this alone."""
    parameters = {"after": after, "limit": limit, "reason": of and of.reason, "waits_for": of and of.id}
    rows = map(AwaitedCommand._make, connection.execute(_LIST, parameters))
    return [row._replace(reason=Reason(row.reason)) for row in rows]


def counts(connection: Connection, most: int = 10) -> Counts:
    """Return how many commands wait, and for what the most do."""
    commands = {Reason(reason): number for reason, number in connection.execute(_COUNTS)}
    shares = [Share(Reason(row[0]), row[1], row[2]) for row in connection.execute(_SHARES, {"most": most})]
    return Counts(commands, shares)


def end_waits(connection: Connection, command_ids: Collection[UUID], of: Wait | None = None) -> int:
    """Let commands wait for the catalog no longer: workers decide them in a moment. Return how many there are."""
    parameters = {"commands": plain(command_ids), "reason": of and of.reason, "waits_for": of and of.id}
    return int(connection.execute(_RELEASE, parameters).rowcount)
