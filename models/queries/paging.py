"""How long answers come page by page, and which ids can be asked for."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import Connection, TextClause

from enrollment.commands import MAX_ID
from enrollment.errors import UnknownCourse, UnknownStudent

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
    make: Callable[[Iterable[Any]], T],
    after: int | None,
    limit: int,
    **parameters: int,
) -> Page[T]:
    """Ask for one row more than wanted: that it comes says that there is a next page."""
    start, limit = bounds(after, limit)
    rows = fetch_rows(connection, statement, after=start, limit=limit + 1, **parameters)
    more = len(rows) > limit
    return Page(list(map(make, rows[:limit])), rows[limit - 1][0] if more else None)


def fetch_rows(connection: Connection, statement: TextClause, **parameters: int) -> list[tuple[Any, ...]]:
    """Return the rows as psycopg gives them; to make SQLAlchemy's own of them is a tenth of a page's time."""
    with connection.execute(statement, parameters) as result:
        cursor: Any = result.cursor
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


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
