"""What `doctor` says of locks that others hold: what waits for them, and which session has them."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

from models import deferred, feed, holders
from models.deferred import Reason, Wait, Waiting
from models.holders import Session
from worker.cli.output import number
from worker.health import Finding

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_BEHIND: Final = 60.0  # seconds; a batch takes less than one

_NAMES: Final = {
    Reason.STUDENT: "the students",
    Reason.COURSE: "the courses",
    Reason.ENROLLMENTS: "enrollments of the students",
    Reason.OTHER: "rows of the students",
}


def locked_tables(engine: "Engine") -> Iterator[Finding]:
    """Find a lock on a whole table that the worker needs."""
    sessions = holders.holders_of_tables(engine)
    if sessions:
        found = f"tables are locked, commands that need them wait; {_held_by(sessions)}"
        yield Finding("warn", "locks", found, _advice(sessions))


def put_off_commands(engine: "Engine", connection: "Connection") -> Finding:
    """Find commands that wait for a lock of others."""
    waiting = deferred.waiting(connection)
    if not waiting:
        return Finding("ok", "locks", "no command waits for a lock")
    sessions = holders.holders_of(engine, [Wait(w.reason, id_) for w in waiting for id_ in w.ids])
    commands, seconds = sum(w.commands for w in waiting), max(w.seconds for w in waiting)
    concerned = "; ".join(map(_concerned, waiting))
    found = f"{number(commands, 'command')} put off, the first {seconds:.0f} s ago: locked are {concerned}"
    if sessions:
        return Finding("warn", "locks", f"{found}; {_held_by(sessions)}", _advice(sessions))
    advice = "A worker applies them within seconds; if not, look in pg_stat_activity for one idle in a transaction"
    return Finding("warn", "locks", found, advice)


def slow_feed(connection: "Connection") -> "Iterator[Finding]":
    """Find the transaction for which the change feed has to wait."""
    seconds = feed.behind(connection)
    if seconds > _BEHIND and (sessions := holders.oldest_writer(connection)):
        found = f"the change feed has stood still for {seconds:.0f} s, as a transaction that wrote goes on; "
        yield Finding("warn", "feed", found + _held_by(sessions), _advice(sessions))


def _concerned(waiting: Waiting) -> str:
    if waiting.reason is Reason.DEAD_LETTERS:
        return "the dead letters"
    return f"{_NAMES[waiting.reason]} {', '.join(map(str, waiting.ids))}"


def _held_by(sessions: Sequence[Session]) -> str:
    return "held by " + " and by ".join(map(_session, sessions))


def _session(session: Session) -> str:
    if not session.pid:
        return "a prepared transaction"
    known = [
        session.application or "without a name",
        f"user {session.user}" if session.user else None,
        session.state,
        None if session.seconds is None else f"its transaction open for {session.seconds:.0f} s",
        session.query,
    ]
    return f"session {session.pid} ({', '.join(filter(None, known))})"


def _advice(sessions: Sequence[Session]) -> str:
    pid = sessions[0].pid
    if not pid:
        return "Find it in pg_prepared_xacts, and end it with COMMIT PREPARED or ROLLBACK PREPARED"
    hidden = any(session.pid and session.state is None for session in sessions)
    more = "; to see what it does, grant pg_read_all_stats to the role that asks" if hidden else ""
    return f"Ask its owner to end the transaction, or run `SELECT pg_terminate_backend({pid})`{more}"
