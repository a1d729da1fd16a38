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
The same for every system is the work per command: the student and both courses are looked up, the rows of
`student_courses` written, the command recorded, all of it durably committed (`fsync`), and one event put on a Redis
Stream. The same are the servers: PostgreSQL and Redis on the same machine as the workers, both of which answer a write
only when it is on the disk. Each works off a backlog that lay in its queue before it started; all take turns. After
each run it is checked that all rows are there and no others, that there are as many records as commands, and that each
command's id is on exactly one event; what else is in a record or an event is not looked at. A rate is that of the
steady part of a run, by the clock of Redis: neither the start of the processes nor the last batch counts.

What is compared, and what is not:

- The peers use the fewest round trips there are: one prepared statement that is its own transaction, one `XADD`. Plain
  Celery has what a tutorial leads to, an ORM session per command, and its default, a process per core. Each of the
  others has two processes or four, whichever was faster on two cores (`benchmarks/peers/`, `benchmarks/systems.py`).
  All have the same parser of Redis's answers (`hiredis`) as this worker.
- What the peers do not keep is what this worker promises. None keeps the order of a student's commands, leaves
  tombstones, or sends monitoring events. None has an outbox: a process that is killed between the commit and `XADD` has
  lost that event, since the repeat finds the command recorded and publishes nothing. Celery with its defaults and the
  bare BRPOP loop lose the command in hand as well. This worker does all of that in its runs, and Flower would see each
  command.
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
_LATENCY: Final = """
Batching has no timer, so it costs an idle system nothing. The goals are about plain Celery: an ORM task and the default
pool. With {commands} commands p99 rests on the slowest {slowest} alone: it differs much from one measurement to the
next.
"""
_SOLO: Final = """
At the median, Celery with a solo pool and tuned statements is faster, {solo:.1f} ms beside {ours:.1f}: it does less
per command (no lock, no order, no outbox, no monitoring events).
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
        "the plot and `performance.json` are what it writes. When each part was measured, the load of the machine just "
        f"before, and the commit: {_circumstances(results)}.\n"
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
        yield from _latency(results)
    if "profile" in results:
        yield from _profile(results)
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


def _latency(results: Results) -> Iterator[str]:
    part = results["latency"]
    ours = part["ours-single-1"]
    slowest = ours["commands"] // 100 + 1
    yield f"## Idle latency\n{_LATENCY.format(commands=ours['commands'], slowest=slowest)}"
    yield from _grid(grids.latency(results))
    solo = part.get("celery-solo", ours)
    if solo["p50"] < ours["p50"]:
        yield _SOLO.format(solo=solo["p50"], ours=ours["p50"])


def _profile(results: Results) -> Iterator[str]:
    """Yield both tables; only where both come from the same measurement, their absolute figures may be compared."""
    yield f"## Where the time goes\n{_STAGES}"
    yield from _grid(grids.profile(results))
    if not BEFORE.exists():
        return
    before = json.loads(BEFORE.read_text())
    then, now = before.get("about", {}), results["profile"].get("about", {})
    if then and then["when"] == now.get("when"):
        how = (
            f"(commit {then['commit']}), measured in turn with the table above (commit {now['commit']}, {now['when']})"
        )
    else:
        when = (
            f"(commit {then['commit']}), measured at another time, {then['when']}"
            if then
            else "measured at another time"
        )
        how = f"{when}: only each stage's share of the sum can be compared"
    yield f"The same before it was made fast {how}:\n"
    yield from _grid(grids.profile({"profile": before}))


def _circumstances(results: Results) -> str:
    """Say it for each part: parts can be measured again by themselves, and then belong to different runs."""
    parts = ((name, part.get("about")) for name, part in results.items())
    return "; ".join(
        f"{name} {about.get('when')}, load {about.get('load')}, commit {about.get('commit')}"
        for name, about in parts
        if about
    )


def _grid(grid: Grid) -> Iterator[str]:
    if not grid.rows:
        return
    yield f"| {' | '.join(grid.columns)} |"
    yield f"|---|{'---:|' * (len(grid.columns) - 1)}"
    for row in grid.rows:
        yield f"| {' | '.join(row)} |"
    yield ""
