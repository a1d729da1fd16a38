"""Whose fault a database error is: the command's, or nobody's (an outage that passes)."""

from typing import Final

import psycopg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from enrollment.errors import EnrollmentError

# SQLSTATE classes (PostgreSQL manual, appendix A) that are not the doing of what was asked. Whatever is in none of
# them, a trigger's RAISE included, is the command's own fault.
_OUTAGES: Final = (
    "08",  # connection lost or refused
    "23502",  # a column that we do not know wants a value: somebody changed the schema
    "25",  # read-only, or another state of the transaction
    "28",  # a password or a role that is wrong for now
    "3D",  # no such database
    "3F",  # no such schema
    "40",  # deadlock, serialization failure
    "42",  # no such table or no right to it: not migrated, not granted
    "53",  # out of connections, memory or disk
    "55",  # a lock that is held too long
    "57",  # shutting down, starting, cancelled
    "58",  # errors of the system below
    "XX001",  # damaged data, damaged index
    "XX002",
)
_TOO_MUCH: Final = ("57014", "53200", "54")  # cancelled by a timeout, out of memory, over a limit
_LOCKED: Final = "55P03"  # lock_timeout, or NOWAIT
_CONFLICTS: Final = ("23505", "23503")  # such a row is there by now; the row that it refers to no longer is


class Overtaken(EnrollmentError):
    """Another hand changed, after they were read, rows that a batch was about to change."""

    def __init__(self) -> None:
        super().__init__("Rows were changed by somebody else while a command on them was decided; decide it anew.")


class Moved(EnrollmentError):
    """A new connection went to another server than the one before: a standby was promoted in between."""

    def __init__(self) -> None:
        super().__init__("Another server is the primary by now; read anew.")


def is_outage(error: BaseException) -> bool:
    """Tell whether the same statement may succeed later, with nothing changed in what was asked.

    So it is with a lost connection, a server that is starting, full or read-only, a deadlock, a lock held too long, a
    schema that is not migrated yet.
    """
    if isinstance(error, PoolTimeout | Moved):
        return True
    if not isinstance(error, DBAPIError):
        return False
    sqlstate = _sqlstate(error)
    if sqlstate is None:
        return isinstance(error, OperationalError | InterfaceError)
    return sqlstate.startswith(_OUTAGES)


def is_locked(error: BaseException) -> bool:
    """Tell whether somebody else holds a lock that was waited for long enough."""
    return _sqlstate(error) == _LOCKED


def is_denied(error: BaseException) -> bool:
    """Tell whether the role may not do what was asked."""
    return _sqlstate(error) == "42501"


def is_too_much(error: BaseException) -> bool:
    """Tell whether less in one transaction might have succeeded."""
    return (_sqlstate(error) or "").startswith(_TOO_MUCH)


def is_conflict(error: BaseException) -> bool:
    """Tell whether somebody else's write may have come first, so that reading again may mend it."""
    return isinstance(error, Overtaken) or (isinstance(error, SQLAlchemyError) and _sqlstate(error) in _CONFLICTS)


def describe(error: BaseException) -> str:
    """Return the error's first line, without statement, parameters and passwords."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]


def _sqlstate(error: BaseException) -> str | None:
    cause = error.orig if isinstance(error, DBAPIError) else None
    return cause.sqlstate if isinstance(cause, psycopg.Error) else None
