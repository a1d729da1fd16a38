"""The page docs/performance.md."""

from collections.abc import Iterator
from typing import Any, Final

from benchmarks.report import grids
from benchmarks.report.goals import goals
from benchmarks.report.grids import Grid, Results

_HOW: Final = """
Every system does the same work per command. It looks up the student and both courses, writes the rows of
`student_courses`, and records the command, all durably committed (`fsync`). Then it adds one event to a Redis Stream.

Every system uses the same servers. PostgreSQL and Redis run on the same machine as the workers. Both answer a write
only when it is on the disk. The backlog is in the queue before the system starts, and the systems take turns.

Each run is checked: the right rows are there and no others, there are as many records as commands, and each command
id is on exactly one event. Other contents of records and events are not checked. A rate is that of the steady part of
a run, by the clock of Redis. The start of the processes and the last batch do not count.

What to know about the comparison:

- The peers use as few round trips as possible: one prepared statement that is its own transaction, and one `XADD`.
  Plain Celery is what a tutorial leads to: an ORM session per command, and the default pool of one process per core.
  Each other peer has two or four processes, whichever was faster on two cores (`benchmarks/peers/`,
  `benchmarks/systems.py`). All of them parse the answers of Redis with `hiredis`, as this worker does.
- The peers promise less. None keeps the order of a student's commands, or writes tombstones. None has an outbox: a
  process that is killed between the commit and the `XADD` loses that event, because the repeat finds the command
  recorded and publishes nothing. Celery with its defaults and the bare BRPOP loop also lose the command in progress.
  This worker does all of these in its runs. Nobody listens for task events, so none are made on either side; where
  Flower does, this worker takes some 15 µs more per command.
- PostgreSQL's limit is the time to write the rows of `student_courses` and nothing else: `INSERT … SELECT` on one
  connection, with the same keys, foreign keys and indexes, all in one transaction. A second figure has 1,000 commands
  per transaction. The rates of the worker include its other writes (records of the commands, the outbox); the limit
  does not.
- The columns in µs are processor time per command, of the workers, PostgreSQL and Redis. They do not depend on what
  else the machine does. The ratios "by processor time" come from their sum.
- Compare figures of one run only. The rates of one machine can differ by a third from one hour to the next.
"""
_BOUND: Final = """
Bulk commands stay below PostgreSQL's limit because they do more. The limit writes two rows per command. The worker
also reads the current state, locks the student, keeps a record with four indexes, and publishes an event. That costs
PostgreSQL {postgres:.1f} times as much, and the worker and Redis another {others:,.0f} µs. Workers and servers share
the cores. With all {cores} cores always busy, the highest possible rate is {most:,.0f} commands a second, or
{ratio:.2f} of the limit.
"""
_LATENCY: Final = """
Batching has no timer, so it adds no latency to an idle system. The goals compare with plain Celery: an ORM task and
the default pool. With {commands} commands, p99 depends on the slowest {slowest} only, so it varies much between
measurements. Processor time is that of worker, PostgreSQL and Redis for one command.
"""
_SOLO: Final = """
Celery with a solo pool and tuned statements has a lower median: {solo:.1f} ms, against {ours:.1f} ms here. It does
less per command: no lock, no order, no outbox.
"""
_STAGES: Final = """
One process, in µs per command. The first figure is wall-clock time. The figure in brackets is the processor time of
the worker in it; the rest is waiting for PostgreSQL, for Redis or for other processes on the machine.
`benchmarks/staged.py` measures by wrapping the worker's functions with clocks, which cost some microseconds per
command themselves.
"""


def markdown(results: Results) -> str:
    """Return the page. Parts that were not measured are left out."""
    return "\n".join(_lines(results)).rstrip() + "\n"


def _lines(results: Results) -> Iterator[str]:
    about: dict[str, Any] = next((part.get("about", {}) for part in results.values()), {})
    yield "# Performance\n"
    yield (
        f"`make bench` writes this page, the plot and `performance.json`. Measured on {_dates(results)}, on "
        f"{about.get('cores')} cores with Python {about.get('python')}.\n"
    )
    yield "For each part, `performance.json` says when it was measured, at which commit, and how busy the machine was."
    if "before" in results.get("profile", {}):
        yield "It also has the profile of an earlier commit, measured in turn with this one."
    yield ""
    yield from _grid(goals(results))
    if "backlog" in results:
        yield "## Compared with other queues\n\n![Commands per second](performance.svg)"
        yield _HOW
        yield from _grid(grids.systems(results))
        yield from _bound(results["backlog"], about.get("cores") or 1)
        for key, reason in results["backlog"]["missing"].items():
            yield f"Missing: {key} ({reason.splitlines()[0]}).\n"
    if "latency" in results:
        yield from _latency(results)
    if "profile" in results:
        yield f"## Where the time goes\n{_STAGES}"
        yield from _grid(grids.profile(results))
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


def _dates(results: Results) -> str:
    """Give the first day and the last: parts can be measured again by themselves, and then belong to different runs."""
    days = sorted({when[:10] for part in results.values() if (when := part.get("about", {}).get("when"))})
    return " to ".join(dict.fromkeys([days[0], days[-1]])) if days else ""


def _grid(grid: Grid) -> Iterator[str]:
    if not grid.rows:
        return
    yield f"| {' | '.join(grid.columns)} |"
    yield f"|---|{'---:|' * (len(grid.columns) - 1)}"
    for row in grid.rows:
        yield f"| {' | '.join(row)} |"
    yield ""
