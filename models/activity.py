"""What happened over time: commands by outcome, source and code, and how long they took.

Bounded whatever `commands` holds. Where a window has more commands than are read, a part of its time is counted, spread
evenly, and the numbers are what that comes to for the whole: `share` tells how much was looked at.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, text

from models.queries import checks

MOST: Final = 100_000  # commands that are read at once: some tenths of a second
_LESS: Final = 4  # times less time is looked at where there was more
_LEAST: Final = 4**-7  # of the time
_PIECES: Final = 20  # of a step, each looked at from its beginning, where not all of it is
_SHOWN: Final = 30  # sources


class Window(NamedTuple):
    """What is looked at: the last `steps`, of so many seconds each."""

    seconds: int
    steps: int


WINDOWS: Final[Mapping[str, Window]] = {"hour": Window(60, 60), "day": Window(1800, 48), "week": Window(10_800, 56)}


class Step(NamedTuple):
    """Commands of one step, and the seconds that half and 95 in a hundred of them took at most."""

    begin: datetime
    applied: int = 0
    rejected: int = 0
    median: float | None = None
    slow: float | None = None


class SourceCount(NamedTuple):
    """Commands of one source (None: they name none), and its newest in the window."""

    source: str | None
    commands: int
    rejected: int
    newest: datetime


@dataclass(frozen=True, slots=True)
class Activity:
    """A window. Rejections are counted by the code of their first error; a median and the like are in seconds."""

    window: Window
    share: float
    steps: tuple[Step, ...]
    total: Step
    sources: tuple[SourceCount, ...]
    codes: Mapping[str, int]


# The time from sending: an id of version 7 says when (RFC 9562, 5.7), else the stamp does. A later stamp is the time at
# which the command was to take effect: it is counted from there. A range of the index of
# `processed_at` for each piece of time; of a window that has too much, reading ends at the limit.
_ACTIVITY: Final = text("""
    WITH seen AS MATERIALIZED (
        SELECT c.* FROM generate_series(0, :pieces - 1) AS piece(number) CROSS JOIN LATERAL (
               SELECT processed_at, outcome = 'rejected' AS rejected, source, errors->0->>'code' AS code,
                      greatest(0, extract(epoch FROM processed_at) - CASE
                          WHEN substr(command_id::text, 15, 1) = '7'
                          THEN greatest(extract(epoch FROM issued_at), ('x' || substr(
                               replace(command_id::text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0)
                          ELSE extract(epoch FROM issued_at) END)::float AS seconds
                 FROM commands
                WHERE outcome IN ('applied', 'rejected')
                  AND processed_at >= CAST(:since AS timestamptz) + number * CAST(:piece AS interval)
                  AND processed_at < CAST(:since AS timestamptz) + number * CAST(:piece AS interval)
                                     + CAST(:part AS interval)) AS c
         LIMIT :most),
    timed AS (SELECT seen.*, floor(extract(epoch FROM processed_at - CAST(:since AS timestamptz)) / :seconds) AS step
                FROM seen)
    SELECT 'step' AS what, step::text AS name, count(*) AS commands, count(*) FILTER (WHERE rejected) AS rejected,
           max(processed_at) AS newest, percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY seconds) AS took
      FROM timed GROUP BY step
    UNION ALL
    SELECT 'total', NULL, count(*), count(*) FILTER (WHERE rejected), max(processed_at),
           percentile_cont(ARRAY[0.5, 0.95]) WITHIN GROUP (ORDER BY seconds) FROM seen
    UNION ALL
    SELECT 'code', code, count(*), count(*), max(processed_at), NULL FROM seen WHERE rejected GROUP BY code
    UNION ALL
    (SELECT 'source', source, count(*), count(*) FILTER (WHERE rejected), max(processed_at), NULL
       FROM seen GROUP BY source ORDER BY count(*) DESC, source LIMIT :shown)
""")


def activity(connection: Connection, window: Window, *, share: float = 1, most: int = MOST) -> Activity:
    """Return what happened in a window that ends now, by the database's clock; begin with `share` of its time."""
    now = checks.clock(connection).timestamp()
    since = datetime.fromtimestamp((now // window.seconds - window.steps + 1) * window.seconds).astimezone()
    while True:
        rows = connection.execute(_ACTIVITY, _parameters(window, since, share, most + 1)).mappings().all()
        if share <= _LEAST or next(row["commands"] for row in rows if row["what"] == "total") <= most:
            return _activity(window, since, share, rows)
        share /= _LESS


def _parameters(window: Window, since: datetime, share: float, limit: int) -> dict[str, Any]:
    pieces = _PIECES if share < 1 else 1
    piece = timedelta(seconds=window.seconds) / pieces
    of_all = {"since": since, "seconds": window.seconds, "most": limit, "shown": _SHOWN}
    return {**of_all, "pieces": window.steps * pieces, "piece": piece, "part": piece * share}


def _activity(window: Window, since: datetime, share: float, rows: Sequence[Any]) -> Activity:
    def times(count: int) -> int:
        return round(count / share)

    def step(begin: datetime, row: Any) -> Step:
        commands, rejected = times(row["commands"]), times(row["rejected"])
        median, slow = row["took"] or (None, None)
        return Step(begin, commands - rejected, rejected, median, slow)

    found = {int(float(row["name"])): row for row in rows if row["what"] == "step"}
    begins = [since + number * timedelta(seconds=window.seconds) for number in range(window.steps)]
    return Activity(
        window=window,
        share=share,
        steps=tuple(step(it, found[n]) if n in found else Step(it) for n, it in enumerate(begins)),
        total=next(step(since, row) for row in rows if row["what"] == "total"),
        sources=tuple(
            SourceCount(row["name"], times(row["commands"]), times(row["rejected"]), row["newest"])
            for row in rows
            if row["what"] == "source"
        ),
        codes={
            row["name"] or "unknown": times(row["commands"])
            for row in sorted(rows, key=lambda it: -it["commands"])
            if row["what"] == "code"
        },
    )
