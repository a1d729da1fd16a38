"""What one batch reads and writes, set-based: a constant number of statements, whatever the number of commands."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import datetime
from math import inf
from time import monotonic
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection, text

from enrollment.events import event_json
from enrollment.fold import Changes, Record, needed
from enrollment.parsing import Invalid, Request
from enrollment.state import BEFORE_ALL, Pair, Stamp, State, StudentState
from models.arrays import Binary, bigints, quoted, times, uuids
from models.db_errors import Overtaken
from models.direct import ask
from models.records import PUT_RARE_RECORDS, PUT_RECORDS, is_rare, parameters_of
from models.retention import OLDEST

# PostgreSQL takes a plan for one command to be cheaper than one for any number, and plans anew each time, which takes
# longer than to run it. But a plan from when a table was empty may read all of it: so for small batches alone, which
# see it grow slowly, and for seconds.
SMALL: Final = 20  # commands
KEPT: Final = 5.0  # seconds
_USE_KEPT_PLANS: Final = text("SET LOCAL plan_cache_mode = force_generic_plan")
_FORGET_PLANS: Final = text("DISCARD PLANS")

# All that the fold must know, in one round trip; `what` says of which kind a row is. A statement of its own after the
# lock, so that it sees what was committed while we waited for it; the clock, too, is read under the lock.
# All pairs of a student are read where that is needed only: else each batch would take longer, and the worker more
# memory, the more courses its students have. The others are looked up one by one, in a way that only the primary key
# can serve: by the index on courses each would be on a page of its own.
_NAMED: Final = """
      FROM named CROSS JOIN LATERAL (
           SELECT issued_at, command_id FROM {table} AS at
            WHERE at.student_id = named.student_id
              AND (at.student_id, at.course_id) >= (named.student_id, named.course_id)
              AND (at.student_id, at.course_id) <= (named.student_id, named.course_id) OFFSET 0) AS pair
"""
_WHOLE: Final = """
    UNION ALL
    SELECT 'enrolled', student_id, course_id, issued_at, command_id, NULL
      FROM student_courses WHERE student_id = ANY(CAST(:whole AS bigint[]))
    UNION ALL
    SELECT 'tombstone', student_id, course_id, issued_at, command_id, NULL
      FROM tombstones WHERE student_id = ANY(CAST(:whole AS bigint[]))
"""
_READ: Final = f"""
      WITH named AS (
           SELECT * FROM unnest(CAST(:named_students AS bigint[]), CAST(:named_courses AS bigint[]))
               AS pair(student_id, course_id))
    SELECT 'clock' AS what, NULL::bigint AS a, NULL::bigint AS b, clock_timestamp() AS at, NULL::uuid AS id,
           NULL::bytea AS hash
    UNION ALL
    SELECT 'course', id, NULL, NULL, NULL, NULL FROM courses WHERE id = ANY(CAST(:courses AS bigint[]))
    UNION ALL
    SELECT 'processed', NULL, NULL, NULL, command_id, content_hash
      FROM commands WHERE command_id = ANY(CAST(:commands AS uuid[]))
    UNION ALL
    SELECT 'closed', course_id, NULL, NULL, NULL, NULL
      FROM closed_courses WHERE course_id = ANY(CAST(:courses AS bigint[]))
    UNION ALL
    SELECT 'oldest', NULL, NULL, {OLDEST}, NULL, NULL FROM retention
    UNION ALL
    SELECT 'processed', NULL, NULL, NULL, command_id, content_hash
      FROM forgotten_commands WHERE command_id = ANY(CAST(:timeless AS uuid[]))
    UNION ALL
    SELECT 'deferred', NULL, NULL, NULL, command_id, content_hash
      FROM deferred_commands WHERE command_id = ANY(CAST(:commands AS uuid[]))
    UNION ALL
    SELECT 'enrolled', student_id, course_id, issued_at, command_id, NULL
    {_NAMED.format(table="student_courses")}
    UNION ALL
    SELECT 'tombstone', student_id, course_id, issued_at, command_id, NULL
    {_NAMED.format(table="tombstones")}
    UNION ALL
    SELECT 'replaced', student_id, NULL, issued_at, command_id, NULL
      FROM replace_marks WHERE student_id = ANY(CAST(:students AS bigint[]))
"""
_READ_NAMED: Final = text(_READ)
_READ_WHOLE: Final = text(_READ + _WHOLE)  # for a command alone, what is not read shows in the time of the rest

_PAIRS: Final = "unnest(CAST(:students AS bigint[]), CAST(:courses AS bigint[])) AS pair(student_id, course_id)"
_STAMPED_PAIRS: Final = """ (student_id, course_id, issued_at, command_id)
    SELECT * FROM unnest(CAST(:students AS bigint[]), CAST(:courses AS bigint[]),
                         CAST(:times AS timestamptz[]), CAST(:commands AS uuid[]))
"""
_OR_UPDATE: Final = """
    ON CONFLICT (student_id, course_id)
    DO UPDATE SET issued_at = EXCLUDED.issued_at, command_id = EXCLUDED.command_id
"""
# A plain insert is an eighth cheaper. Should another hand put the row there meanwhile, or take away one that is to get
# a new stamp, the batch is read anew.
_PUT_ADDED: Final = text(f"INSERT INTO student_courses {_STAMPED_PAIRS}")
_PUT_ENROLLED: Final = text(f"INSERT INTO student_courses {_STAMPED_PAIRS} {_OR_UPDATE}")
_RESTAMP: Final = text("""
    UPDATE student_courses AS old SET issued_at = new.issued_at, command_id = new.command_id
      FROM unnest(CAST(:students AS bigint[]), CAST(:courses AS bigint[]),
                  CAST(:times AS timestamptz[]), CAST(:commands AS uuid[]))
        AS new(student_id, course_id, issued_at, command_id)
     WHERE (old.student_id, old.course_id) = (new.student_id, new.course_id)
""")
# Who took the row away meanwhile without a command has left a tombstone, which may be newer.
_PUT_TOMBSTONES: Final = text(f"""
    INSERT INTO tombstones AS old {_STAMPED_PAIRS} {_OR_UPDATE}
     WHERE (old.issued_at, old.command_id) < (EXCLUDED.issued_at, EXCLUDED.command_id)
""")
# The setting is for the trigger that tells of rows which vanish without a command: this transaction tells by itself.
_TAKE_UNENROLLED: Final = text(f"""
    DELETE FROM student_courses AS old USING {_PAIRS}
    WHERE (old.student_id, old.course_id) = (pair.student_id, pair.course_id)
      AND (SELECT set_config('enrollment.tells', 'on', true)) = 'on'
""")
_TAKE_TOMBSTONES: Final = text(f"""
    DELETE FROM tombstones AS old USING {_PAIRS}
    WHERE (old.student_id, old.course_id) = (pair.student_id, pair.course_id)
""")
_PUT_REPLACED: Final = text("""
    INSERT INTO replace_marks (student_id, issued_at, command_id)
    SELECT * FROM unnest(CAST(:students AS bigint[]), CAST(:times AS timestamptz[]), CAST(:commands AS uuid[]))
    ON CONFLICT (student_id) DO UPDATE SET issued_at = EXCLUDED.issued_at, command_id = EXCLUDED.command_id
""")
_PUT_COMMANDS: Final = text(f"""
      WITH owed AS (INSERT INTO outbox (batch_id, command_ids) VALUES (:batch_id, CAST(:command_id AS uuid[])))
    {PUT_RECORDS}
""")
_PUT_RARE_COMMANDS: Final = text(f"""
      WITH owed AS (INSERT INTO outbox (batch_id, command_ids, events)
                    VALUES (:batch_id, CAST(:decided AS uuid[]), CAST(:events AS text[]))
                        ON CONFLICT (batch_id) DO UPDATE
                       SET command_ids = outbox.command_ids || EXCLUDED.command_ids, events = EXCLUDED.events)
    {PUT_RARE_RECORDS}
""")
_TAKE_WAITING: Final = text("""
    DELETE FROM commands WHERE command_id = ANY(CAST(:commands AS uuid[])) AND outcome = 'waiting'
""")


# To be called for the answer, which is read then (models.direct), of the students that are ours; and the clock.
Reading = Callable[[AbstractSet[int]], tuple[State, datetime]]


def use_plans(connection: Connection, commands: int) -> None:
    """Let a small batch go by plans that were made before. To be called first in a transaction."""
    if commands > SMALL:
        return
    info, now = connection.info, monotonic()  # of the session, as long as it lives
    if now - info.get("planned", -inf) > KEPT:
        info["planned"] = now
        ask(connection, _FORGET_PLANS, {})
    ask(connection, _USE_KEPT_PLANS, {})


def read_state(
    connection: Connection,
    student_ids: Collection[int],
    requests: Sequence[Request],
    told: AbstractSet[UUID] = frozenset(),
) -> Reading:
    """Read what the fold must know to decide these requests, and the database's clock, after the lock was asked for.

    Those of `told` stand in `commands` as waiting, and are this transaction's to decide.
    """
    parameters = {"students": bigints(student_ids), **_named(student_ids, requests, told)}
    asked = ask(connection, _READ_WHOLE if "whole" in parameters else _READ_NAMED, parameters)
    return lambda locked: _state(asked.rows(), locked, told)


def _state(
    rows: Iterable[tuple[Any, ...]], student_ids: AbstractSet[int], told: AbstractSet[UUID]
) -> tuple[State, datetime]:
    state = State(told=told)
    students: defaultdict[int, StudentState] = defaultdict(StudentState)  # some of them may not be ours
    now: datetime | None = None
    for what, a, b, at, id_, content_hash in rows:
        match what:
            case "course":
                state.courses.add(a)
            case "processed":
                state.processed[id_] = content_hash
            case "deferred":
                state.processed.setdefault(id_, content_hash)
            case "enrolled" | "tombstone":
                stamp = BEFORE_ALL if at is None or id_ is None else Stamp(at, id_)
                pairs = students[a].pairs
                pair = Pair(what == "enrolled", stamp)
                # Both are there where another hand put the row back: it counts, but is no older than the tombstone.
                pairs[b] = pair if b not in pairs else Pair(enrolled=True, stamp=max(stamp, pairs[b].stamp))
            case "closed":
                state.closed.add(a)
            case "oldest":
                state.oldest = at
            case "replaced":
                students[a].replaced = Stamp(at, id_)
            case _:
                now = at
    assert now is not None  # noqa: S101 (the first SELECT always returns its row)
    state.students = {student_id: students[student_id] for student_id in student_ids}
    return state, now


def _named(students: Collection[int], requests: Sequence[Request], told: AbstractSet[UUID]) -> dict[str, Binary]:
    """Return what these requests are about, as parameters of `_READ`; of these students, the others are not locked."""
    commands = [request for request in requests if not isinstance(request, Invalid)]
    whole, named = needed(requests)
    pairs = sorted(pair for pair in named if pair[0] in students)
    return {
        "commands": uuids({request.command_id for request in requests} - told),
        "timeless": uuids({it.command_id for it in requests if _is_ageless(it)} - told),
        "courses": bigints({course_id for command in commands for course_id in command.course_ids}),
        "named_students": bigints([pair[0] for pair in pairs]),
        "named_courses": bigints([pair[1] for pair in pairs]),
        **({"whole": bigints(whole.intersection(students))} if whole else {}),
    }


def _is_ageless(request: Request) -> bool:
    """Tell whether a repeat of this may come that is not refused by its age."""
    return isinstance(request, Invalid) or request.issued_at is None or request.effective_at is not None


def write_changes(connection: Connection, changes: Changes) -> None:
    """Write the rows that follow from a batch. The students concerned are locked. Raises Overtaken."""
    if changes.unenrolled:
        ask(connection, _TAKE_UNENROLLED, _pairs(changes.unenrolled))
    if changes.tombstones_removed:
        ask(connection, _TAKE_TOMBSTONES, _pairs(changes.tombstones_removed))
    if changes.added:
        ask(connection, _PUT_ADDED, _stamped_pairs(changes.added))
    if changes.enrolled:
        ask(connection, _PUT_ENROLLED, _stamped_pairs(changes.enrolled))
    if changes.restamped:
        restamped = ask(connection, _RESTAMP, _stamped_pairs(changes.restamped))
        if restamped.rowcount != len(changes.restamped):
            raise Overtaken
    if changes.tombstones_added:
        ask(connection, _PUT_TOMBSTONES, _stamped_pairs(changes.tombstones_added))
    if changes.replaced:
        marks = changes.replaced
        ask(
            connection,
            _PUT_REPLACED,
            {
                "students": bigints(student_id for student_id, _ in marks),
                "times": times(stamp.issued_at for _, stamp in marks),
                "commands": uuids(stamp.command_id for _, stamp in marks),
            },
        )


def write_commands(connection: Connection, records: Sequence[Record], batch_id: UUID) -> None:
    """Write the records of a batch, and into the outbox that their events are to be published.

    Raises IntegrityError when one of the ids was taken in the meantime.
    """
    rare = [record for record in records if is_rare(record)]
    common = [record for record in records if not is_rare(record)] if rare else records
    if common:
        ask(connection, _PUT_COMMANDS, {"batch_id": batch_id, **parameters_of(common)})
    if rare:
        decided = uuids(record.command_id for record in rare if record.waiting is None)
        events = quoted([event_json(record) for record in rare if record.waiting is not None])
        parameters = parameters_of(rare, rare=True)
        ask(connection, _PUT_RARE_COMMANDS, {"batch_id": batch_id, "decided": decided, "events": events, **parameters})


def take_waiting(connection: Connection, command_ids: Collection[UUID]) -> None:
    """Take away that these commands wait: they are decided in this transaction."""
    ask(connection, _TAKE_WAITING, {"commands": uuids(command_ids)})


def _pairs(pairs: Sequence[tuple[int, int]]) -> dict[str, Any]:
    return {"students": bigints([pair[0] for pair in pairs]), "courses": bigints([pair[1] for pair in pairs])}


def _stamped_pairs(pairs: Sequence[tuple[int, int, Stamp]]) -> dict[str, Any]:
    return {
        "students": bigints([pair[0] for pair in pairs]),
        "courses": bigints([pair[1] for pair in pairs]),
        "times": times([pair[2].issued_at for pair in pairs]),
        "commands": uuids([pair[2].command_id for pair in pairs]),
    }
