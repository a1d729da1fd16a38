"""The lock that each batch takes: on the students that its commands are about."""

from collections.abc import Callable, Collection
from typing import Final

from sqlalchemy import Connection, text

from models.arrays import bigints
from models.direct import Answer, ask

# In id order, so that two batches with students in common wait for each other instead of deadlocking. NO KEY: rows that
# refer to a student (foreign keys) are not blocked.
_LOCK_STUDENTS: Final = text("""
    SELECT id FROM students WHERE id = ANY(CAST(:students AS bigint[])) ORDER BY id FOR NO KEY UPDATE
""")
_LOCK_FREE: Final = text(f"{_LOCK_STUDENTS.text} SKIP LOCKED")
_EXISTING: Final = text("SELECT id FROM students WHERE id = ANY(CAST(:students AS bigint[]))")
# Milliseconds for another worker's batch to end. A commit that waits for a standby far away takes hundreds of them, and
# two workers would put each other's commands off again and again. After 2 s it is no worker any more (models.locks).
PATIENCE: Final = 1500
_LOCK_TIMEOUT: Final = text(f"SET LOCAL lock_timeout = '{PATIENCE}ms'")

# To be called for the answer, which is read then (models.direct): the students that exist and are ours, and the busy.
Lock = Callable[[], tuple[set[int], set[int]]]


def lock_students(connection: Connection, student_ids: Collection[int]) -> Lock:
    """Lock these students until the end of the transaction.

    Busy is who is locked by another transaction; nobody is waited for.
    """
    if not student_ids:
        return lambda: (set(), set())
    asked = ask(connection, _LOCK_FREE, {"students": bigints(sorted(student_ids))})

    def told() -> tuple[set[int], set[int]]:
        locked = _ids(asked)
        rest = set(student_ids) - locked
        return locked, _ids(ask(connection, _EXISTING, {"students": bigints(rest)})) if rest else set()

    return told


def wait_for_students(connection: Connection, student_ids: Collection[int]) -> set[int]:
    """Lock these students, waiting for whoever holds them, up to `PATIENCE`; return those that exist.

    To be called first in a transaction: who waits here must not hold what others wait for.
    """
    if not student_ids:
        return set()
    connection.execute(_LOCK_TIMEOUT)
    return _ids(ask(connection, _LOCK_STUDENTS, {"students": bigints(sorted(student_ids))}))


def _ids(answer: Answer) -> set[int]:
    return {row[0] for row in answer.rows()}
