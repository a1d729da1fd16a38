"""Which session holds a lock: asked of PostgreSQL by waiting for it, in a transaction that is given up at once."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any, Final

from sqlalchemy import Connection, Engine, text

from models.deferred import Reason, Wait
from models.locks import LETTERS, ROWS, WRITTEN

_PATIENCE: Final = 0.2  # seconds for the server to say who is waited for; it takes milliseconds
_SAMPLES: Final = 5  # things waited for that are asked about
_WRITE: Final = "LOCK TABLE {tables} IN ROW EXCLUSIVE MODE"
_WAIT: Final = {
    Reason.STUDENT: "SELECT FROM students WHERE id = {id} FOR NO KEY UPDATE",
    Reason.COURSE: "SELECT FROM courses WHERE id = {id} FOR KEY SHARE",
    Reason.ENROLLMENTS: "; ".join(
        [
            _WRITE.format(tables=ROWS),
            *(f"SELECT FROM {table} WHERE student_id = {{id}} FOR UPDATE" for table in ROWS.split(", ")),
        ]
    ),
    Reason.DEAD_LETTERS: _WRITE.format(tables=LETTERS),
}
_TABLES: Final = (
    _WRITE.format(tables=f"{WRITTEN}, {ROWS}"),
    "SELECT FROM students WHERE false FOR NO KEY UPDATE",
    "SELECT FROM courses WHERE false FOR KEY SHARE",
)
_HOLDERS: Final = text("""
    SELECT pid, application_name, usename, state,
           extract(epoch FROM clock_timestamp() - xact_start)::float AS seconds,
           left(regexp_replace(query, '\\s+', ' ', 'g'), 80) AS query
      FROM pg_stat_activity WHERE pid = ANY(pg_blocking_pids(:pid))
    UNION ALL
    SELECT 0, 'a prepared transaction', NULL, NULL, NULL, NULL WHERE 0 = ANY(pg_blocking_pids(:pid))
""")
# Who has written to the rows that batches write, and has not ended for a while.
_WRITERS: Final = text("""
    SELECT DISTINCT ON (pid) pid, application_name, usename, state,
           extract(epoch FROM clock_timestamp() - xact_start)::float AS seconds,
           left(regexp_replace(query, '\\s+', ' ', 'g'), 80) AS query
      FROM pg_locks JOIN pg_stat_activity USING (pid)
     WHERE relation = ANY(CAST(:tables AS regclass[])) AND mode = 'RowExclusiveLock' AND granted
       AND pid <> pg_backend_pid() AND xact_start < clock_timestamp() - interval '1 second'
     LIMIT 5
""")
# In all databases of the cluster: their transactions have numbers in common.
_OLDEST: Final = text("""
    SELECT pid, application_name, usename, state,
           extract(epoch FROM clock_timestamp() - xact_start)::float AS seconds,
           left(regexp_replace(query, '\\s+', ' ', 'g'), 80) AS query, age(backend_xid) AS age
      FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
    UNION ALL
    SELECT 0, 'a prepared transaction', NULL, NULL, NULL, NULL, age(transaction) FROM pg_prepared_xacts
     ORDER BY age DESC LIMIT 1
""")
_PID: Final = text("SELECT pg_backend_pid()")


@dataclass(frozen=True, slots=True)
class Session:
    """A session that holds what is waited for. None is what the asking role may not see. `seconds`: its transaction."""

    pid: int
    application: str | None
    user: str | None
    state: str | None
    seconds: float | None
    query: str | None  # its beginning


def holders_of(engine: Engine, waits: Iterable[Wait]) -> list[Session]:
    """Return who holds what some of these wait for.

    What can only be met by writing (`other`: a row that is inserted, not committed) cannot be asked about. Then it is
    who has written to the same tables, some time ago, in a transaction that goes on.
    """
    distinct = list(dict.fromkeys(waits))
    asked = [_WAIT[wait.reason].format(id=wait.id) for wait in distinct if wait.reason in _WAIT]
    found = _holders(engine, asked[:_SAMPLES])
    if found or len(asked) == len(distinct):
        return found
    with engine.connect() as connection:
        tables = [table.strip() for table in f"{ROWS}, {WRITTEN}".split(",")]
        return [Session(*row) for row in connection.execute(_WRITERS, {"tables": tables})]


def holders_of_tables(engine: Engine) -> list[Session]:
    """Return who holds a table that the worker reads or writes, so that nothing can be applied."""
    return _holders(engine, _TABLES)


def oldest_writer(connection: Connection) -> list[Session]:
    """Return who has the oldest transaction that has written anything, if anyone has one."""
    return [Session(*row[:-1]) for row in connection.execute(_OLDEST)]


def _holders(engine: Engine, statements: Sequence[str]) -> list[Session]:
    found: dict[int, Session] = {}
    if statements:
        with engine.connect() as waiting, engine.connect() as watching:
            for statement in statements:
                found.update((session.pid, session) for session in _blockers(waiting, watching, statement))
    return list(found.values())


def _blockers(waiting: Connection, watching: Connection, statement: str) -> list[Session]:
    """Let one connection wait, and ask the other who is waited for."""
    pid = waiting.execute(_PID).scalar_one()
    driver: Any = waiting.connection.driver_connection
    driver.pgconn.send_query(statement.encode())  # without waiting for the answer
    until = monotonic() + _PATIENCE
    sessions: list[Session] = []
    while not sessions and monotonic() < until and _is_busy(driver.pgconn):
        sessions = [Session(*row) for row in watching.execute(_HOLDERS, {"pid": pid})]
        watching.rollback()
        sleep(0.005)
    driver.cancel()
    while driver.pgconn.get_result() is not None:
        pass
    waiting.rollback()
    return sessions


def _is_busy(pgconn: Any) -> bool:
    pgconn.consume_input()
    return bool(pgconn.is_busy())
