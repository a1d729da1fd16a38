"""Results as grids of text, from which both the terminal and the page are made."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

Results = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table; all columns but the first are numbers."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


def systems(results: Results) -> Grid:
    """Return the rates of all systems, the fastest last, and then PostgreSQL alone."""
    part = results["backlog"]
    tuned = part["systems"].get("celery-tuned", {}).get("median")
    found = sorted(part["systems"].values(), key=lambda system: float(system["median"]))
    rows = [
        [
            each["label"],
            f"{each['median']:,.0f}",
            f"{min(each['rates']):,.0f} to {max(each['rates']):,.0f}",
            f"{each['median'] / tuned:.1f}" if tuned else "",
            *(f"{each['us'][of]:,.0f}" for of in ("worker", "postgres", "redis")),
            f"{sum(each['us'].values()):,.0f}",
        ]
        for each in [*found, *part["limits"].values()]
    ]
    columns = ["system", "median", "range", "x Celery tuned", "worker µs", "PostgreSQL µs", "Redis µs", "all µs"]
    return Grid("Commands per second, backlog", columns, rows)


def latency(results: Results) -> Grid:
    names = {
        "ours-single-1": "this worker",
        "celery-orm": "Celery, ORM, prefork",
        "celery-solo": "Celery, tuned, one solo process",
    }
    rows = [
        [names.get(key, key), *(f"{each[what]:.1f}" for what in ("p50", "p99", "processor")), str(each["commands"])]
        for key, each in results["latency"].items()
        if key != "about"
    ]
    columns = ["system", "p50", "p99", "processor time", "commands"]
    return Grid("Idle latency, ms, command sent to event readable", columns, rows)


def profile(results: Results, title: str = "Where a command's time goes, µs per command") -> Grid:
    """Return wall-clock time by stage, and in brackets what of it the worker's processor was at work."""
    found = results["profile"]["profiles"]
    rows = [
        [stage, *(f"{each['stages'][stage][0]:,.1f} ({each['stages'][stage][1]:,.1f})" for each in found)]
        for stage in found[0]["stages"]
    ]
    sums = [[sum(pair[of] for pair in each["stages"].values()) for of in (0, 1)] for each in found]
    rows.append(["sum", *(f"{wall:,.1f} ({cpu:,.1f})" for wall, cpu in sums)])
    missing = sorted({name for each in found for name in each["missing"]})
    rows += [[f"not found: {name}", *[""] * len(found)] for name in missing]
    return Grid(title, ["stage", *(each["title"] for each in found)], rows)


def others(results: Results) -> Grid:
    """Return everything that is one number."""
    rows = [row for part, make in _OTHERS.items() if part in results for row in make(results[part])]
    return Grid("Producers, reads, HTTP, starts, memory, growth, distance", ["what", "measured", "compared with"], rows)


def _producers(part: Results) -> list[list[str]]:
    def beside(suffix: str) -> str:
        return f"send_task {part[f'send_task{suffix}']:,.0f}/s, bare LPUSH {part[f'lpush{suffix}']:,.0f}/s"

    return [
        ["`enrollment send FILE`", f"{part['file']:,.0f}/s", ""],
        ["client, `bulk()`", f"{part['bulk']:,.0f}/s", beside("")],
        ["client, one message each, `appendfsync always`", f"{part['client']:,.0f}/s", beside("")],
        ["client, one message each, `appendfsync everysec`", f"{part['client_everysec']:,.0f}/s", beside("_everysec")],
    ]


def _reads(part: Results) -> list[list[str]]:
    names = {"courses_of": "`courses_of`", "page": "page of 100 `students_with_courses`"}
    return [
        [f"{name}, 500,000 rows", f"{part[key][0]:,.0f} µs", f"psycopg {part[key][1]:,.0f} µs"]
        for key, name in names.items()
    ]


def _http(part: Results) -> list[list[str]]:
    (lookups, bare), (writes, earlier), (over, through) = part["lookups"], part["writes"], part["write_ms"]
    return [
        [
            "HTTP lookups of a student's courses, one process",
            f"{lookups:,.0f}/s",
            f"a bare FastAPI route {bare:,.0f}/s",
        ],
        [
            "HTTP writes until the outcome is known, one process",
            f"{writes:,.0f}/s",
            f"an earlier gateway {earlier:,.0f}/s" if earlier else "",
        ],
        ["HTTP write, one client, p50", f"{over:.1f} ms", f"through the queue {through:.1f} ms"],
    ]


def _starts(part: Results) -> list[list[str]]:
    return [
        ["`enrollment --help`", f"{part['help']:,.0f} ms", f"its imports {part['help_imports']:,.0f} ms"],
        [
            "worker, start to first event",
            f"{part['worker']:,.0f} ms",
            f"its imports {part['worker_imports']:,.0f} ms; plain Celery {part['plain_celery']:,.0f} ms",
        ],
    ]


def _memory(part: Results) -> list[list[str]]:
    found = part["megabytes"]
    (first, early), (start, then), (last, late) = found[0], found[max(0, len(found) // 4 - 1)], found[-1]
    between = f"from {start:,} to {last:,} commands"
    return [
        ["memory of a worker", f"{late:,.0f} MB after {last:,} commands", f"{early:,.0f} MB after {first:,}"],
        ["its growth per million commands", f"{1e6 * (late - then) / max(1, last - start):,.1f} MB", between],
    ]


def _growth(part: Results) -> list[list[str]]:
    (few, small), (many, large) = part["rates"].items()
    cost, more = sum(small["us"].values()), sum(large["us"].values())
    return [
        [
            f"commands/s with {int(many):,} rows",
            f"{large['median']:,.0f}",
            f"with {int(few):,}: {small['median']:,.0f}",
        ],
        [
            f"processor time per command with {int(many):,} rows",
            f"{more:,.0f} µs, of which PostgreSQL {large['us']['postgres']:,.0f}",
            f"with {int(few):,}: {cost:,.0f} µs, of which PostgreSQL {small['us']['postgres']:,.0f}",
        ],
        [
            f"processor time per command with {int(many):,} rows vs {int(few):,}",
            f"{more / cost:.2f}" if cost else "",
            "no goal; above 1, each command costs more, even where the rates are equal",
        ],
        *(
            [
                f"`{name}` with {int(many):,} rows",
                f"{part['reads'][many][name][0]:,.0f} µs",
                f"with {int(few):,}: {part['reads'][few][name][0]:,.0f} µs",
            ]
            for name in ("courses_of",)
        ),
    ]


def _distance(part: Results) -> list[list[str]]:
    (_, near), *others = part["rates"].items()
    without = f"without distance: {near['median']:,.0f}"
    return [
        [f"commands/s of workers {away} ms from both servers", f"{there['median']:,.0f}", without]
        for away, there in others
    ]


_OTHERS: Final[Mapping[str, Callable[[Results], list[list[str]]]]] = {
    "producers": _producers,
    "reads": _reads,
    "http": _http,
    "starts": _starts,
    "memory": _memory,
    "growth": _growth,
    "distance": _distance,
}
