"""What the query module costs beside the same statement through bare psycopg."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, Final

import psycopg
from sqlalchemy import Connection, TextClause
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from models import queries
from models.engine import make_engine
from models.queries import lookups

PAGE: Final = 100


@dataclass(frozen=True, slots=True)
class Reads:
    """Microseconds, medians: through `models.queries`, and through psycopg."""

    courses_of: tuple[float, float]
    page: tuple[float, float]


def reads(url: str, *, students: int, count: int) -> Reads:
    """Measure `courses_of` for students at random, and pages of 100 `students_with_courses` from a place at random."""
    draw = random.Random(7)  # noqa: S311 - to be repeatable is the point
    ids = [draw.randint(1, students) for _ in range(count)]
    starts = [draw.randint(0, max(0, students - 2 * PAGE)) for _ in range(max(1, count // 10))]
    engine = make_engine("postgresql+psycopg" + url.removeprefix("postgresql"), application_name="bench")
    # Both know the statements they repeat: psycopg prepares them after the fifth time.
    one, page = _bare(lookups._COURSES_OF), _bare(lookups._STUDENTS_WITH_COURSES)  # noqa: SLF001 - the same statements
    with engine.connect() as ours, psycopg.connect(url, autocommit=True) as bare:
        found = Reads(
            courses_of=_compare(
                ids,
                lambda id_: queries.courses_of(ours, id_),
                lambda id_: bare.execute(one, {"id": id_}).fetchall(),
            ),
            page=_compare(
                starts,
                lambda after: _page(ours, after),
                lambda after: bare.execute(page, {"after": after, "limit": PAGE + 1}).fetchall(),
            ),
        )
    engine.dispose()
    return found


def _page(connection: Connection, after: int) -> object:
    return queries.students_with_courses(connection, after=after, limit=PAGE)


def _bare(statement: TextClause) -> Any:
    dialect: Any = PGDialect_psycopg  # its constructor is untyped
    return str(statement.compile(dialect=dialect()))


def _compare(values: list[int], *ways: Callable[[int], object]) -> Any:
    """Return the median of each way in microseconds.

    They take turns, so that noise falls on all of them, and turns at going first, which finds the caches cold.
    """
    times: list[list[float]] = [[] for _ in ways]
    turn = list(zip(ways, times, strict=True))
    for value in values:
        turn.reverse()
        for way, mine in turn:
            begin = perf_counter()
            way(value)
            mine.append(1e6 * (perf_counter() - begin))
    return tuple(map(median, times))
