"""The page docs/performance.md."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.report import grids
from benchmarks.report.goals import goals
from benchmarks.report.grids import Grid, Results

BEFORE: Final = Path(__file__).parents[1] / "profile-before.json"

_HOW: Final = """
Every system does the same work per command: the student and both courses are looked up, the rows of `student_courses`
written, the command recorded, all of it durably committed (`fsync`), and one event put on a Redis Stream. Every system
has the same PostgreSQL and Redis, durable, on the same machine as its workers. Each works off a backlog that lay in its
queue before it started; all take turns, and after each run every row, record and event is checked. A rate is that of
the steady part of a run, by the clock of Redis: neither the start of the processes nor the last batch counts.

What is compared, and what is not:

- The peers use the fewest round trips there are: one prepared statement that is its own transaction, one `XADD`. Plain
  Celery has what a tutorial leads to, an ORM session per command. Each has its best simple configuration for two cores
  (`benchmarks/peers/`, `benchmarks/systems.py`).
- The peers neither keep the order of commands nor leave tombstones, have no outbox, and send no monitoring events. This
  worker does all of that in its runs, and Flower would see each command.
- PostgreSQL's limit is the rows of `student_courses` alone, by `INSERT … SELECT` on one connection, with the same keys,
  foreign keys and indexes, all in one transaction (and, for comparison, 1,000 commands in each). What the worker writes
  besides (records of the commands, the outbox) is in its rates, and not in the limit's.
- The columns in µs are processor time per command, of the workers, of PostgreSQL and of Redis: what a command costs,
  whatever else the machine does. The ratios "by processor time" come from their sum.
- Only ratios within one run mean anything; the same machine differs by a third from one hour to the next.
"""
_BOUND: Final = """
Why bulk commands stay below PostgreSQL's limit: that writes two rows per command and nothing else. A command through
the worker also reads what is there, locks the student, keeps a record with two indexes and tells the world, which costs
PostgreSQL {postgres:.1f} times as much, and worker and Redis another {others:,.0f} µs. Workers and servers share the
cores, so were all {cores} busy all the time, {most:,.0f} commands a second, or {ratio:.2f} of the limit, would be the
most there is to have.
"""
_STAGES: Final = """
One process; wall-clock time by stage, and in brackets the part of it in which the worker's own processor was at work
(the rest is waiting for PostgreSQL, Redis or the other processes on the machine). Measured by clocks that
`benchmarks/staged.py` puts on the worker's functions from outside; they cost some microseconds per command themselves.
"""


def markdown(results: Results) -> str:
    """Return the page. Parts that were not measured are left out."""
    return "\n".join(_lines(results)).rstrip() + "\n"


def _lines(results: Results) -> Iterator[str]:
    about: dict[str, Any] = next((part.get("about", {}) for part in results.values()), {})
    yield "# Performance\n"
    yield (
        f"Measured by `{about.get('command')}` on {about.get('cores')} cores, Python {about.get('python')}. This page, "
        "the plot and `performance.json` are what it writes. When each part was measured, and the load of the machine "
        f"just before: {_circumstances(results)}.\n"
    )
    yield from _grid(goals(results))
    if "backlog" in results:
        yield "## Beside other queues\n\n![Commands per second](performance.svg)"
        yield _HOW
        yield from _grid(grids.systems(results))
        yield from _bound(results["backlog"], about.get("cores") or 1)
        for key, reason in results["backlog"]["missing"].items():
            yield f"Missing: {key} ({reason.splitlines()[0]}).\n"
    if "latency" in results:
        yield "## Idle latency\n\nBatching has no timer, so it costs an idle system nothing.\n"
        yield from _grid(grids.latency(results))
    if "profile" in results:
        yield f"## Where the time goes\n{_STAGES}"
        yield from _grid(grids.profile(results))
        if BEFORE.exists():
            yield "The same before it was made fast:\n"
            yield from _grid(grids.profile({"profile": json.loads(BEFORE.read_text())}))
    yield "## The rest\n"
    yield from _grid(grids.others(results))


def _bound(part: Results, cores: int) -> Iterator[str]:
    us, limit = part["systems"]["ours-apply-2"]["us"], part["limits"]["all at once"]
    if total := sum(us.values()):
        most = cores * 1e6 / total
        yield _BOUND.format(
            postgres=us["postgres"] / limit["us"]["postgres"],
            others=us["worker"] + us["redis"],
            cores=cores,
            most=most,
            ratio=most / limit["median"],
        )


def _circumstances(results: Results) -> str:
    """Say it for each part: parts can be measured again by themselves, and then belong to different runs."""
    parts = ((name, part.get("about")) for name, part in results.items())
    return "; ".join(f"{name} {about.get('when')}, load {about.get('load')}" for name, about in parts if about)


def _grid(grid: Grid) -> Iterator[str]:
    if not grid.rows:
        return
    yield f"| {' | '.join(grid.columns)} |"
    yield f"|---|{'---:|' * (len(grid.columns) - 1)}"
    for row in grid.rows:
        yield f"| {' | '.join(row)} |"
    yield ""
