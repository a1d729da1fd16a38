"""How long answers come page by page, and which ids can be asked for."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Connection, TextClause

from enrollment.commands import MAX_ID
from enrollment.errors import UnknownCourse, UnknownStudent
from models.direct import ask, session_of
from models.session import Session

MAX_LIMIT: Final = 10_000  # rows of one page; a larger `limit` gives pages of this size
_MIN_ID: Final = -(2**63)  # PostgreSQL's bigint; below every id, those of a foreign system included
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a long answer; `after` is what to ask for the next part with, None where this is the last."""

    items: list[T]
    after: int | None


def fetch_page(
    connection: Connection,
    statement: TextClause,
    make: Callable[[tuple[Any, ...]], T],
    after: int | None,
    limit: int,
    **parameters: int,
) -> Page[T]:
    """Ask for one row more than wanted: that it comes says that there is a next page. The id comes first in a row."""
    start, limit = bounds(after, limit)
    rows: list[Any] = fetch_rows(connection, statement, make, after=start, limit=limit + 1, **parameters)
    more = len(rows) > limit
    return Page(rows[:limit], rows[limit - 1][0] if more else None)


def fetch_rows(
    connection: Connection, statement: TextClause, make: Callable[[tuple[Any, ...]], T], **parameters: int | str
) -> list[T]:
    """Return what `make` makes of each row.

    On a session of ours, which makes them while it reads, SQLAlchemy's layers are passed over: they take longer.
    """
    if not isinstance(session_of(connection), Session):
        with connection.execute(statement, parameters) as result:
            rows: Any = result.cursor
            return list(map(make, rows.fetchall()))
    if not connection.in_transaction():
        connection.begin()  # as `execute` does: it ends with `commit`, or with the connection
    return ask(connection, statement, parameters).each(make)


def bounds(after: int | None, limit: int) -> tuple[int, int]:
    start = _MIN_ID if after is None else max(_MIN_ID, min(after, MAX_ID))
    return start, max(1, min(limit, MAX_LIMIT))


def is_id(value: int) -> bool:
    """Tell whether this can be an id at all; another number would make PostgreSQL compare as numeric, row by row."""
    return _MIN_ID <= value <= MAX_ID


def require_ids(student_id: int, course_id: int) -> None:
    if not is_id(student_id):
        raise UnknownStudent(student_id)
    if not is_id(course_id):
        raise UnknownCourse(course_id)
