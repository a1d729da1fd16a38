"""The goals, and how far the results are from them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.report.grids import Grid, Results

MET, MISSED = "met", "missed"


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal, as a number that is to be at least (or, `at_most`) so much."""

    what: str
    measured: float
    goal: float
    at_most: bool = False

    @property
    def met(self) -> bool:
        return self.measured <= self.goal if self.at_most else self.measured >= self.goal

    def row(self) -> list[str]:
        sign = "at most" if self.at_most else "at least"
        return [self.what, _number(self.measured), f"{sign} {_number(self.goal)}", MET if self.met else MISSED]


def goals(results: Results) -> Grid:
    """Return a row per goal whose part was measured."""
    rows = [goal.row() for part, make in _PARTS.items() if part in results for goal in make(results[part])]
    return Grid("Goals", ["ratio", "measured", "goal", ""], rows)


def _backlog(part: Results) -> Iterator[Goal]:
    found = {key: system["median"] for key, system in part["systems"].items()}
    peers = {key: system["median"] for key, system in part["systems"].items() if not system["ours"]}
    single, limit = max(found["ours-single-1"], found["ours-single-2"]), part["limits"]["all at once"]["median"]
    if "celery-tuned" in peers:
        yield Goal("single commands vs Celery tuned", single / peers["celery-tuned"], 10)
    if "celery-orm" in peers:
        yield Goal("single commands vs Celery with the ORM", single / peers["celery-orm"], 25)
    if peers:
        best = max(peers, key=lambda key: peers[key])
        yield Goal(f"single commands vs the best peer ({_name(part, best)})", single / peers[best], 5)
    yield from _processor_time(part)
    yield Goal("apply, one process vs PostgreSQL's limit", found["ours-apply-1"] / limit, 0.6)
    yield Goal("apply, two processes vs PostgreSQL's limit", found["ours-apply-2"] / limit, 1.0)
    yield Goal("single commands, two processes vs one", found["ours-single-2"] / found["ours-single-1"], 1.6)


def _processor_time(part: Results) -> Iterator[Goal]:
    """Yield what the rates would say if nobody else used the machine: all three kinds of process are on its cores."""
    costs = {key: sum(system["us"].values()) for key, system in part["systems"].items()}
    ours = costs["ours-single-2"]
    peers = {key: cost for key, cost in costs.items() if not part["systems"][key]["ours"]}
    if not ours or not peers:
        return
    if "celery-tuned" in peers:
        yield Goal("the same by processor time vs Celery tuned", peers["celery-tuned"] / ours, 10)
    if "celery-orm" in peers:
        yield Goal("the same by processor time vs Celery with the ORM", peers["celery-orm"] / ours, 25)
    best = min(peers, key=lambda key: peers[key])
    yield Goal(f"the same by processor time vs the best peer ({_name(part, best)})", peers[best] / ours, 5)


def _name(part: Results, key: str) -> str:
    return str(part["systems"][key]["label"]).split(",")[0]


def _latency(part: Results) -> Iterator[Goal]:
    for name in ("p50", "p99"):
        ratio = part["ours-single-1"][name] / part["celery-orm"][name]
        yield Goal(f"idle latency {name} vs plain Celery", ratio, 1, at_most=True)


def _growth(part: Results) -> Iterator[Goal]:
    (few, few_rates), (many, many_rates) = part["rates"].items()
    ratio = many_rates["median"] / few_rates["median"]
    yield Goal(f"commands/s with {int(many):,} rows vs {int(few):,}", ratio, 0.8)


def _distance(part: Results) -> Iterator[Goal]:
    near, *others = part["rates"].items()
    for (away, there), least in zip(others, (0.8, 0.3), strict=True):
        what = f"commands/s of workers {away} ms from both servers vs none"
        yield Goal(what, there["median"] / near[1]["median"], least)


def _memory(part: Results) -> Iterator[Goal]:
    found = part["megabytes"]
    (last, late), (_, then) = found[-1], found[max(0, len(found) // 4 - 1)]
    what = f"memory after {last:,} commands vs a quarter of the way"
    yield Goal(what, late / max(1, then), 1.05, at_most=True)


def _producers(part: Results) -> Iterator[Goal]:
    yield Goal("`enrollment send FILE`, commands/s", part["file"], 20_000)
    yield Goal("client, `bulk()` vs send_task", part["bulk"] / part["send_task"], 5)
    ratio = part["client_everysec"] / part["send_task_everysec"]
    yield Goal("client, one message each, `appendfsync everysec`, vs send_task", ratio, 5)


def _reads(part: Results) -> Iterator[Goal]:
    yield Goal("`courses_of` vs psycopg", part["courses_of"][0] / part["courses_of"][1], 1.5, at_most=True)
    yield Goal("page of 100 vs psycopg", part["page"][0] / part["page"][1], 1.5, at_most=True)


def _http(part: Results) -> Iterator[Goal]:
    yield Goal("HTTP lookups/s vs a bare FastAPI route", part["lookups"][0] / part["lookups"][1], 0.8)
    ours, earlier = part["writes"]
    if earlier:
        yield Goal("HTTP writes/s, 16 clients, vs an earlier gateway", ours / earlier, 4)
    over, through = part["write_ms"]
    yield Goal("HTTP write, one client, ms more than through the queue", over - through, 2, at_most=True)


_PARTS: Final[dict[str, Callable[[Any], Iterator[Goal]]]] = {
    "backlog": _backlog,
    "latency": _latency,
    "growth": _growth,
    "memory": _memory,
    "producers": _producers,
    "reads": _reads,
    "http": _http,
    "distance": _distance,
}


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"  # noqa: PLR2004 - digits that mean something
