"""Locks that somebody else holds: what of a batch they keep from being written, asked without waiting for any."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, TextClause, text
from sqlalchemy.exc import DBAPIError

from enrollment.fold import Changes
from models.arrays import plain
from models.db_errors import is_denied, is_locked
from models.deferred import Reason, Wait
from models.student_locks import lock_students

# A batch that looks first does not expect to wait; what it then still meets cannot be asked for (a row that another
# transaction has inserted, a trigger of somebody else's).
WRITTEN: Final = "commands, outbox, deferred_commands"  # by every batch
ROWS: Final = "student_courses, tombstones, replace_marks"  # by every batch that changes something
LETTERS: Final = "dead_letters"
_RESERVE: Final = text(f"""
    DO $$ BEGIN SET LOCAL lock_timeout = '50ms'; LOCK TABLE {WRITTEN} IN ROW EXCLUSIVE MODE NOWAIT; END $$
""")


def _busy(rows: str, lock: str) -> TextClause:
    """Return a statement for those of `rows` that cannot be locked: they are there, and passed over."""
    return text(f"WITH ours AS MATERIALIZED ({rows} {lock} SKIP LOCKED) {rows} EXCEPT SELECT * FROM ours")


_PAIRS: Final = """
    SELECT at.student_id, at.course_id FROM {table} AS at
      JOIN unnest(CAST(:students AS bigint[]), CAST(:courses AS bigint[])) AS pair(student_id, course_id)
        ON (at.student_id, at.course_id) = (pair.student_id, pair.course_id)
"""
_BUSY_ENROLLMENTS: Final = _busy(_PAIRS.format(table="student_courses"), "FOR UPDATE OF at")
_BUSY_TOMBSTONES: Final = _busy(_PAIRS.format(table="tombstones"), "FOR UPDATE OF at")
_BUSY_MARKS: Final = _busy(
    "SELECT student_id FROM replace_marks AS at WHERE student_id = ANY(CAST(:students AS bigint[]))", "FOR UPDATE"
)
_BUSY_STUDENTS: Final = _busy(  # by their enrollments
    "SELECT student_id, course_id FROM student_courses AS at WHERE student_id = ANY(CAST(:students AS bigint[]))",
    "FOR UPDATE",
)
# As the foreign keys lock them.
_BUSY_COURSES: Final = _busy("SELECT id FROM courses AS at WHERE id = ANY(CAST(:courses AS bigint[]))", "FOR KEY SHARE")
# A worker's transaction that has just begun lets go in a moment; its beginning may not be visible yet. One that is
# older may be frozen. (Where several sessions share a lock, xmax is no transaction: nobody is found, and the lock is
# waited for once.)
_HELD_BY_OTHERS: Final = text("""
    SELECT students.id FROM students
      JOIN pg_locks AS held ON held.locktype = 'transactionid' AND held.granted AND held.transactionid = students.xmax
      LEFT JOIN pg_stat_activity AS holder ON holder.pid = held.pid
     WHERE students.id = ANY(CAST(:students AS bigint[]))
       AND (holder.application_name = current_setting('application_name')
            AND coalesce(holder.xact_start > clock_timestamp() - interval '2 seconds', true)) IS NOT TRUE
""")


@dataclass(frozen=True, slots=True)
class Busy:
    """What is locked of that which a batch is about to write."""

    students: frozenset[int] = frozenset()  # by rows that belong to them
    courses: frozenset[int] = frozenset()
    dead_letters: bool = False

    def __bool__(self) -> bool:
        return bool(self.students or self.courses or self.dead_letters)


def reserve(connection: Connection) -> None:
    """Make sure that the tables every batch writes can be written, and let the transaction wait for hardly anything.

    Raises what `is_locked` tells where somebody holds one of them, or waits to (a migration).
    """
    connection.execute(_RESERVE)


def busy(connection: Connection, changes: Changes, *, dead_letters: bool) -> Busy:
    """Return what is locked by others of the rows that `changes` is about, and of what they refer to.

    What is not is locked for this transaction. With `dead_letters`, that table is to be written, too.
    """
    added = [(student_id, course_id) for student_id, course_id, _ in (*changes.added, *changes.enrolled)]
    updated = [(student_id, course_id) for student_id, course_id, _ in changes.restamped]
    put = [(student_id, course_id) for student_id, course_id, _ in changes.tombstones_added]
    enrolled, tombstones = [*changes.unenrolled, *updated], [*changes.tombstones_removed, *put]
    replaced = [student_id for student_id, _ in changes.replaced]
    if _may_write(connection, ROWS):
        students = {
            *_of_pairs(connection, _BUSY_ENROLLMENTS, enrolled),
            *_of_pairs(connection, _BUSY_TOMBSTONES, tombstones),
            *_ids(connection, _BUSY_MARKS, "students", replaced),
        }
    else:
        students = {*replaced, *(pair[0] for pair in (*added, *enrolled, *tombstones))}
    return Busy(
        frozenset(students),
        frozenset(_busy_courses(connection, {pair[1] for pair in added})),
        dead_letters and not _may_write(connection, LETTERS),
    )


def free(connection: Connection, waits: Sequence[Wait]) -> list[Wait]:
    """Return what of this can be locked now, or in a moment, or is not there any more."""
    _, locked = lock_students(connection, _of(waits, Reason.STUDENT))()
    enrolled = _of(waits, Reason.ENROLLMENTS)
    held = {
        Reason.STUDENT: held_by_others(connection, locked),
        Reason.COURSE: _busy_courses(connection, _of(waits, Reason.COURSE)),
        Reason.ENROLLMENTS: _ids(connection, _BUSY_STUDENTS, "students", enrolled)
        if _may_write(connection, ROWS)
        else enrolled,
        Reason.DEAD_LETTERS: () if _may_write(connection, LETTERS) else (0,),
    }
    return [wait for wait in waits if wait.id not in held.get(wait.reason, ())]


def held_by_others(connection: Connection, student_ids: Collection[int]) -> set[int]:
    """Return those of these students that are locked by another session than a worker that will let go in a moment."""
    return _ids(connection, _HELD_BY_OTHERS, "students", student_ids)


def _of(waits: Iterable[Wait], reason: Reason) -> set[int]:
    return {wait.id for wait in waits if wait.reason is reason}


def _of_pairs(connection: Connection, statement: TextClause, pairs: Sequence[Sequence[Any]]) -> set[int]:
    if not pairs:
        return set()
    parameters = {"students": plain([pair[0] for pair in pairs]), "courses": plain([pair[1] for pair in pairs])}
    return set(connection.execute(statement, parameters).scalars())


def _ids(connection: Connection, statement: TextClause, name: str, ids: Collection[int]) -> set[int]:
    return set(connection.execute(statement, {name: plain(sorted(ids))}).scalars()) if ids else set()


def _busy_courses(connection: Connection, ids: Collection[int]) -> Collection[int]:
    """Return the courses that cannot be referred to now; all of them where the table is locked.

    A role that may not lock them may refer to them all the same: it is told of none, and meets the lock when it writes.
    """
    try:
        with connection.begin_nested():
            return _ids(connection, _BUSY_COURSES, "courses", ids)
    except DBAPIError as error:
        if is_denied(error):
            return ()
        if not is_locked(error):
            raise
        return ids


def _may_write(connection: Connection, tables: str) -> bool:
    try:
        with connection.begin_nested():
            connection.execute(text(f"LOCK TABLE {tables} IN ROW EXCLUSIVE MODE NOWAIT"))
    except DBAPIError as error:
        if not is_locked(error):
            raise
        return False
    return True
