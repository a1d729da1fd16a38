"""Commands that cannot be decided yet: they wait in PostgreSQL, with their place in the order of arrival."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Row, text

from enrollment.commands import format_time
from models.arrays import nullable, plain, quoted
from models.db_errors import Overtaken
from models.dead_letters import storable


class Reason(StrEnum):
    """What a command waits for: a lock that somebody else holds; or, last in order, what is in `AWAITED`."""

    STUDENT = "student"  # on the row of this student
    COURSE = "course"  # on the row of this course
    ENROLLMENTS = "enrollments"  # on rows of this student: enrollments, tombstones, the replace mark
    OTHER = "other"  # on something that this student's rows need
    DEAD_LETTERS = "dead_letters"  # on the table of dead letters
    TIME = "time"  # its own
    UNKNOWN_COURSE = "unknown_course"  # that this course exists
    UNKNOWN_STUDENT = "unknown_student"


AWAITED: Final = (Reason.TIME, Reason.UNKNOWN_COURSE, Reason.UNKNOWN_STUDENT)  # no locks


class Wait(NamedTuple):
    """What is waited for: a reason, and the student or course concerned (0: no one)."""

    reason: Reason
    id: int


@dataclass(frozen=True, slots=True)
class Deferred:
    """A command as it is kept while it waits. `id` is 0 until it is kept."""

    wait: Wait
    first_seen: datetime
    command_id: UUID | None
    content_hash: bytes | None
    student_id: int | None
    request: str  # JSON
    task: str
    task_id: str
    message_key: str
    position: int
    headers: str  # JSON
    id: int = 0
    until: datetime | None = None  # its time; or until when a student or course is waited for, if it is one that does
    told: bool = False  # that it waits: it stands in `commands`

    @property
    def promised(self) -> datetime | None:
        """Until when its student and courses are waited for, where that was said."""
        return None if self.wait.reason is Reason.TIME else self.until


class Waiting(NamedTuple):
    """How many commands wait for one reason, how long the oldest does (seconds), and some of the ids waited for."""

    reason: Reason
    commands: int
    seconds: float
    ids: list[int]


# In order of the id, so that two workers with the same commands do not wait for each other crosswise.
_PUT: Final = text("""
    INSERT INTO deferred_commands (reason, waits_for, first_seen, command_id, content_hash, student_id, request, task,
                                   task_id, message_key, position, headers, until, told)
    SELECT reason, waits_for, first_seen, command_id, decode(content_hash, 'hex'), student_id, request, task,
           task_id, message_key, position, headers, until, told
      FROM unnest(CAST(:reasons AS text[]), CAST(:ids AS bigint[]), CAST(:times AS timestamptz[]),
                  CAST(:commands AS uuid[]), CAST(:hashes AS text[]), CAST(:students AS bigint[]),
                  CAST(:requests AS text[]), CAST(:tasks AS text[]), CAST(:task_ids AS text[]),
                  CAST(:keys AS text[]), CAST(:positions AS bigint[]), CAST(:headers AS text[]),
                  CAST(:untils AS timestamptz[]), CAST(:told AS boolean[]))
        AS t(reason, waits_for, first_seen, command_id, content_hash, student_id, request, task,
             task_id, message_key, position, headers, until, told)
     ORDER BY command_id
        ON CONFLICT (command_id) DO NOTHING RETURNING command_id
""")
_CONTENTS: Final = text("""
    SELECT command_id, content_hash FROM deferred_commands WHERE command_id = ANY(CAST(:commands AS uuid[]))
""")
_CLOCK: Final = text("SELECT clock_timestamp()")
_TAKE: Final = text("""
    DELETE FROM deferred_commands WHERE id IN (
           SELECT id FROM deferred_commands WHERE id = ANY(CAST(:ids AS bigint[])) FOR UPDATE SKIP LOCKED)
    RETURNING id, until
""")


# A step through the index for each thing waited for, however many commands wait for it.
_WAITS: Final = text("""
      WITH RECURSIVE wait AS (
           (SELECT reason, waits_for FROM deferred_commands
             WHERE (reason, waits_for) > (:reason, CAST(:id AS bigint)) AND reason < 'time'
             ORDER BY reason, waits_for LIMIT 1)
           UNION ALL
           SELECT next.reason, next.waits_for FROM wait CROSS JOIN LATERAL (
                  SELECT reason, waits_for FROM deferred_commands AS d
                   WHERE (d.reason, d.waits_for) > (wait.reason, wait.waits_for) AND reason < 'time'
                   ORDER BY d.reason, d.waits_for LIMIT 1) AS next)
    SELECT reason, waits_for FROM wait LIMIT :most
""")
COLUMNS: Final = """reason, waits_for, first_seen, command_id, content_hash, student_id, request, task, task_id,
                  message_key, position, headers, id, until, told"""
# What another worker is about to apply is passed over.
_PAGE: Final = text(f"""
    SELECT d.* FROM unnest(CAST(:reasons AS text[]), CAST(:ids AS bigint[])) AS free(reason, waits_for)
     CROSS JOIN LATERAL (
           SELECT {COLUMNS}
             FROM deferred_commands AS d WHERE (d.reason, d.waits_for) = (free.reason, free.waits_for)
            ORDER BY d.reason, d.waits_for, d.first_seen LIMIT :each FOR UPDATE SKIP LOCKED) AS d
     LIMIT :most
""")
_WAITING: Final = text("""
    SELECT reason, count(*), extract(epoch FROM clock_timestamp() - min(first_seen))::float,
           (array_agg(DISTINCT waits_for))[1:5]
      FROM deferred_commands WHERE reason < 'time' GROUP BY reason ORDER BY reason
""")


def put(connection: Connection, commands: Sequence[Deferred]) -> set[int]:
    """Keep commands; return the positions in `commands` of those that are kept already, under the same id.

    Another command under an id that is kept waits for its turn without the id: the first stands.
    """
    first: dict[UUID, int] = {}
    for place, command in enumerate(commands):
        if command.command_id is not None:
            first.setdefault(command.command_id, place)
    ours = [c for place, c in enumerate(commands) if c.command_id is None or first[c.command_id] == place]
    new = {command_id for command_id in _insert(connection, ours) if command_id is not None}
    if len(new) == len(first) and len(ours) == len(commands):
        return set()
    kept = {row[0]: row[1] for row in connection.execute(_CONTENTS, {"commands": plain(first)})}
    again: set[int] = set()
    others: list[Deferred] = []
    for place, command in enumerate(commands):
        if command.command_id is None or (command.command_id in new and first[command.command_id] == place):
            continue
        if kept.get(command.command_id) == command.content_hash:
            again.add(place)
        else:
            others.append(replace(command, command_id=None))
    _insert(connection, others)
    return again


def put_anew(connection: Connection, commands: Sequence[Deferred]) -> None:
    """Keep commands that are not kept yet. Raises Overtaken where one of the ids is by now: read anew."""
    if commands and len(list(_insert(connection, commands))) < len(commands):
        raise Overtaken


def _insert(connection: Connection, commands: Sequence[Deferred]) -> Iterable[UUID | None]:
    if not commands:
        return ()
    parameters: dict[str, Any] = {
        "reasons": plain([c.wait.reason for c in commands]),
        "ids": plain([c.wait.id for c in commands]),
        "times": plain([format_time(c.first_seen) for c in commands]),
        "commands": nullable([None if c.command_id is None else c.command_id.hex for c in commands]),
        "hashes": nullable([None if c.content_hash is None else c.content_hash.hex() for c in commands]),
        "students": nullable([c.student_id for c in commands]),
        "requests": quoted([c.request for c in commands]),
        "tasks": quoted([c.task for c in commands]),
        "task_ids": quoted([storable(c.task_id) for c in commands]),
        "keys": quoted([storable(c.message_key) for c in commands]),
        "positions": plain([c.position for c in commands]),
        "headers": quoted([c.headers for c in commands]),
        "untils": nullable([c.until and format_time(c.until) for c in commands]),
        "told": plain([c.told for c in commands]),
    }
    return connection.execute(_PUT, parameters).scalars().all()


def clock(connection: Connection) -> datetime:
    """Return the clock of the database."""
    now: datetime = connection.execute(_CLOCK).scalar_one()
    return now


def take(connection: Connection, ids: Collection[int]) -> dict[int, datetime | None]:
    """Take kept commands out, to be decided in this transaction; return the ids that were not another worker's.

    With each, until when it waits by now: somebody may have ended its wait since it was read.
    """
    return {row.id: row.until for row in connection.execute(_TAKE, {"ids": plain(ids)})} if ids else {}


def waits(connection: Connection, after: Wait | None, most: int) -> list[Wait]:
    """Return what commands wait for, up to `most` of it, in an order of its own, beginning after `after`."""
    reason, id_ = (after.reason, after.id) if after else ("", 0)
    rows = connection.execute(_WAITS, {"reason": reason, "id": id_, "most": most})
    return [Wait(Reason(row[0]), row[1]) for row in rows]


def page(connection: Connection, free: Sequence[Wait], most: int, *, each: int | None = None) -> list[Deferred]:
    """Return up to `most` commands that wait for these, up to `each` of one, the oldest of it; they are locked."""
    if not free:
        return []
    parameters = {"reasons": plain([wait.reason for wait in free]), "ids": plain([wait.id for wait in free])}
    rows = connection.execute(_PAGE, {**parameters, "most": most, "each": each or most})
    return list(map(deferred_of, rows))


def deferred_of(row: Row[Any]) -> Deferred:
    """Return the command kept in a row that has the columns of a page."""
    reason, id_, *rest = tuple(row)
    return Deferred(Wait(Reason(reason), id_), *rest)


def waiting(connection: Connection) -> list[Waiting]:
    """Return how many commands wait for locks, by reason: for `doctor` and for metrics. Empty: none does."""
    return [Waiting(Reason(row[0]), row[1], max(0.0, row[2]), row[3]) for row in connection.execute(_WAITING)]
