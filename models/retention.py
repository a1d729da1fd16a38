"""What is older than the retention is removed: a step at a time, in the order of the keys, one step anywhere at once.

The row of `retention` is the lock, the position and the promise: everything from before `forgotten_before` is refused
by the fold (`too_old`). That is committed before anything is removed, and what is removed is older by `MARGIN`: a stamp
may be ahead of the time at which its command was processed.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from enrollment.parsing import hash_with_time
from models.arrays import plain

SETTING: Final = "enrollment.retention"  # of a worker's sessions: days
MARGIN: Final = timedelta(hours=1)
PAUSE: Final = timedelta(days=1)  # from the end of one walk to the next

# Where no worker says how long commands are kept, what was promised before still counts.
OLDEST: Final = f"""greatest(forgotten_before,
    clock_timestamp() - make_interval(days => CAST(nullif(current_setting('{SETTING}', true), '') AS int)))"""


class Part(IntEnum):
    """What the walk goes through, in this order: no mark is removed before the commands of its age."""

    COMMANDS = 0
    TOMBSTONES = 1
    MARKS = 2
    DEAD_LETTERS = 3


class Step(NamedTuple):
    """What a step did: rows looked at and rows removed. `done`: the walk has come to its end."""

    part: Part
    seen: int
    removed: int
    done: bool


class Going(NamedTuple):
    """Rows that are old enough to go: of one table, counted where it is small, else as PostgreSQL estimates them."""

    table: str
    rows: int
    exact: bool


class State(NamedTuple):
    """How far retention is. `forgotten_before` is None where nothing was ever removed."""

    forgotten_before: datetime | None
    part: Part
    passed_at: datetime | None
    removed: int
    unpublished: int  # commands that are old enough and stay, because their events are not published
    forgotten: int  # ids that are kept without their commands


@dataclass(frozen=True, slots=True)
class _Page:
    rows: int
    after: tuple[int, str] | None  # the last key; None: this table is done with
    removed: int


_NEVER: Final = datetime.fromisoformat("0001-01-02T00:00:00+00:00")
# A step that is lost with the server is made again; that nobody waits for the disk is worth more.
_LOCK: Final = text("""
    SELECT forgotten_before, part, after_a, after_b, passed_at, clock_timestamp() AS now,
           set_config('synchronous_commit', 'off', true) AS eased
      FROM retention FOR NO KEY UPDATE SKIP LOCKED
""")
_PROMISE: Final = text("""
    UPDATE retention SET forgotten_before = clock_timestamp() - make_interval(days => :days)
     WHERE forgotten_before < clock_timestamp() - make_interval(days => :days)
""")
_MOVE: Final = text("""
    UPDATE retention SET part = :part, after_a = :a, after_b = :b, removed = removed + :removed,
           passed_at = CASE WHEN :done THEN clock_timestamp() ELSE passed_at END
""")
_STATE: Final = text("""
    SELECT forgotten_before, part, passed_at, removed, (SELECT count(*) FROM forgotten_commands) AS forgotten,
           (SELECT count(*) FROM outbox CROSS JOIN unnest(command_ids) AS owed(id)
              JOIN commands ON command_id = owed.id AND processed_at < :before) AS unpublished
      FROM retention
""")
# Below the oldest transaction under way: nothing comes to stand behind the walk.
_COMMANDS: Final = text("""
    SELECT position, command_id, command, student_id, course_ids, issued_at, source, content_hash, processed_at,
           errors @> '[{"code": "invalid_command"}]' AS invalid
      FROM commands
     WHERE (position, command_id) > (:a, CAST(:b AS uuid))
       AND outcome <> 'waiting'
       AND position < CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS text) AS bigint)
     ORDER BY position, command_id LIMIT :rows
""")
# Of any age: `enrollment reconcile` puts old commands into the outbox.
_UNPUBLISHED: Final = text("""
    SELECT owed.id FROM outbox CROSS JOIN unnest(command_ids) AS owed(id) WHERE owed.id = ANY(CAST(:ids AS uuid[]))
""")
_REMEMBER: Final = text("""
    INSERT INTO forgotten_commands (command_id, content_hash)
    SELECT command_id, content_hash FROM commands WHERE command_id = ANY(CAST(:ids AS uuid[]))
    ON CONFLICT DO NOTHING
""")
_REMOVE: Final = text("DELETE FROM commands WHERE command_id = ANY(CAST(:ids AS uuid[]))")
# 1: some of those that are older than the feed; transactions are numbered from 3.
_GONE: Final = text("UPDATE retention SET gone_to = greatest(gone_to, :position, 1)")
_FIRST_ID: Final = "00000000-0000-0000-0000-000000000000"


def _walk(table: str, keys: str, after: str, old: str) -> Any:
    """Return the statement for a step through a table whose rows need no second look."""
    return text(f"""
          WITH page AS (SELECT {keys}, {old} AS old FROM {table} WHERE ({keys}) > ({after})
                         ORDER BY {keys} LIMIT :rows),
               gone AS (DELETE FROM {table} WHERE ({keys}) IN (SELECT {keys} FROM page WHERE old)
                           AND {old} RETURNING 1)
        SELECT (SELECT count(*) FROM page), (SELECT count(*) FROM gone),
               last.* FROM (SELECT {keys} FROM page ORDER BY {keys} DESC LIMIT 1) AS last
    """)


_DECIDED: Final = "coalesce(replayed_at, discarded_at)"
_WALKS: Final = {
    Part.TOMBSTONES: _walk("tombstones", "student_id, course_id", ":a, CAST(:b AS bigint)", "issued_at < :before"),
    Part.MARKS: _walk("replace_marks", "student_id", ":a", "issued_at < :before"),
    Part.DEAD_LETTERS: _walk("dead_letters", "id", ":a", f"coalesce({_DECIDED} < :before, false)"),
}
_OLD: Final = {
    "commands": "processed_at < :before AND outcome <> 'waiting' AND coalesce(issued_at < :before, true)",
    "tombstones": "issued_at < :before",
    "replace_marks": "issued_at < :before",
    "dead_letters": f"{_DECIDED} < :before",
}
_SMALL: Final = 1_000_000  # rows


def step(connection: Connection, days: int, rows: int, *, at_once: bool = False) -> Step | None:
    """Make one step, of up to `rows` rows; the caller commits. None: nothing is to be done now, or another is at it.

    A walk begins a day after the last one ended; `at_once`: now.
    """
    row = connection.execute(_LOCK).one_or_none()
    if row is None or (_rests(row) and not at_once):
        return None
    part = Part(row.part)
    begins = part is Part.COMMANDS and row.after_b == ""
    if begins and connection.execute(_PROMISE, {"days": days}).rowcount:
        connection.execute(_MOVE, {"part": part, "a": row.after_a, "b": _FIRST_ID, "removed": 0, "done": False})
        return Step(part, 0, 0, done=False)  # committed before anything is removed
    before = min(max(row.forgotten_before, _NEVER) - MARGIN, row.now - timedelta(days=days))
    parameters = {"a": row.after_a, "b": row.after_b or _FIRST_ID, "before": before, "rows": rows}
    page = _commands(connection, parameters) if part is Part.COMMANDS else _others(connection, part, parameters)
    done = page.after is None and part is Part.DEAD_LETTERS
    a, b, following = (*page.after, part) if page.after else (-1, "0", Part((part + 1) % len(Part)))
    connection.execute(
        _MOVE, {"part": following, "a": a, "b": "" if done else b, "removed": page.removed, "done": done}
    )
    return Step(part, page.rows, page.removed, done)


def state(connection: Connection, before: datetime) -> State:
    """Return how far it is; `before` is up to where commands would go now."""
    row = connection.execute(_STATE, {"before": before}).one()
    promised = row.forgotten_before if row.forgotten_before > _NEVER else None
    return State(promised, Part(row.part), row.passed_at, row.removed, row.unpublished, row.forgotten)


def going(connection: Connection, before: datetime) -> list[Going]:
    """Return how many rows are old enough to go. Constant cost, whatever the tables hold."""
    return [_count(connection, table, condition, before) for table, condition in _OLD.items()]


def _count(connection: Connection, table: str, condition: str, before: datetime) -> Going:
    plan = text(f"EXPLAIN (FORMAT JSON) SELECT FROM {table} WHERE {condition}")
    size = text(f"EXPLAIN (FORMAT JSON) SELECT FROM {table}")
    exact = int(connection.execute(size).scalar_one()[0]["Plan"]["Plan Rows"]) < _SMALL
    if exact:
        count = text(f"SELECT count(*) FROM {table} WHERE {condition}")
        return Going(table, int(connection.execute(count, {"before": before}).scalar_one()), exact)
    rows = connection.execute(plan, {"before": before}).scalar_one()[0]["Plan"]["Plan Rows"]
    return Going(table, int(rows), exact)


def _rests(row: Row[Any]) -> bool:
    begins = row.part == Part.COMMANDS and row.after_b == ""
    return begins and row.passed_at is not None and row.passed_at + PAUSE > row.now


def _commands(connection: Connection, parameters: dict[str, Any]) -> _Page:
    rows = connection.execute(_COMMANDS, parameters).all()
    before = parameters["before"]
    ends = next((n for n, row in enumerate(rows) if row.position and not row.processed_at < before), len(rows))
    # One that was rejected for a stamp far ahead stays until that is old: its repeat would not be refused before.
    ahead = before + MARGIN
    gone = [row for row in rows[:ends] if row.processed_at < before and not (row.issued_at and row.issued_at >= ahead)]
    if gone:
        ids = {"ids": plain([row.command_id for row in gone])}
        unpublished = set(connection.execute(_UNPUBLISHED, ids).scalars())
        gone = [row for row in gone if row.command_id not in unpublished]
    if gone:
        _forget(connection, gone)
    last = rows[-1] if ends == len(rows) == parameters["rows"] else None
    return _Page(len(rows), (last.position, str(last.command_id)) if last is not None else None, len(gone))


def _forget(connection: Connection, rows: list[Row[Any]]) -> None:
    timeless: list[UUID] = [row.command_id for row in rows if row.invalid or _timeless(row)]
    if timeless:
        connection.execute(_REMEMBER, {"ids": plain(timeless)})
    connection.execute(_REMOVE, {"ids": plain([row.command_id for row in rows])})
    connection.execute(_GONE, {"position": rows[-1].position})


def _timeless(row: Row[Any]) -> bool:
    """Tell whether a repeat may show no age. What no message said (an empty hash) has no repeat."""
    if not row.content_hash:
        return False
    said = f"{row.command} {row.student_id} {sorted(row.course_ids or ())}"
    return row.issued_at is None or row.content_hash != hash_with_time(said, row.issued_at, row.source)


def _others(connection: Connection, part: Part, parameters: dict[str, Any]) -> _Page:
    row = connection.execute(_WALKS[part], {**parameters, "b": int(parameters["b"].partition("-")[0])}).one_or_none()
    if row is None:
        return _Page(0, None, 0)
    last = (row[2], str(row[3]) if len(row) > 3 else "0")  # noqa: PLR2004
    return _Page(row[0], last if row[0] == parameters["rows"] else None, row[1])
