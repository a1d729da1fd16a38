"""The parts of a benchmark, each a function from the ground to what goes into the result file."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks import growth
from benchmarks.backlog import Backlogs, Run, WrongResultError, measure
from benchmarks.distance import distances
from benchmarks.environments import prepare
from benchmarks.ground import Ground
from benchmarks.latency import latencies, summary
from benchmarks.limit import insert_select
from benchmarks.producers import producers
from benchmarks.reads import reads
from benchmarks.root import ROOT
from benchmarks.stages import profiles
from benchmarks.starts import starts
from benchmarks.systems import PLAIN, SOLO, SYSTEMS, System, ours
from benchmarks.web import web
from benchmarks.workload import Enroll, enrolls

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Form:
    """How much of everything. The full form takes about ten minutes on two quiet cores, the short one five at most."""

    rounds: int
    peer_seconds: float  # of a run of a peer, at the rate it had when this was written
    peer_most: int  # commands
    single: int  # commands, a message each
    bulk: int  # commands in `apply` messages
    latency: int
    rows: tuple[int, int]
    grown: int  # commands
    grown_before: int  # commands, so that few pages are written for the first time since a checkpoint
    grown_rounds: int
    memory: int
    file: int
    loop: int
    reads: int
    web: float  # seconds of each run
    profile: float  # of the sizes in stages.py
    peers: tuple[System, ...] = SYSTEMS
    before: Path | None = None  # a checkout of an earlier commit, to be measured in turn with this one


FULL: Final = Form(
    rounds=3,
    peer_seconds=1.5,
    peer_most=5_000,
    single=20_000,
    bulk=60_000,
    latency=150,
    rows=(100_000, 10_000_000),
    grown=10_000,
    grown_before=60_000,
    grown_rounds=3,
    memory=400_000,
    file=50_000,
    loop=1_000,
    reads=2_000,
    web=1.5,
    profile=0.7,
)
SHORT: Final = Form(
    rounds=1,
    peer_seconds=1.0,
    peer_most=1_500,
    single=8_000,
    bulk=40_000,
    latency=100,
    rows=(100_000, 1_000_000),
    grown=5_000,
    grown_before=5_000,
    grown_rounds=1,
    memory=40_000,
    file=20_000,
    loop=500,
    reads=500,
    web=1.0,
    profile=0.3,
)


def backlog(ground: Ground, form: Form, say: Say) -> dict[str, Any]:
    """All systems in turn, and PostgreSQL alone, as many rounds as the form says."""
    backlogs, missing = Backlogs(), dict[str, str]()
    runs: dict[str, list[Run]] = {}
    limits: dict[str, list[Run]] = {}
    commands = enrolls(max(form.peer_most, form.single, form.bulk), seed=1)  # each takes as many as it needs
    systems = [*_ready(ground, form, missing), ours(1), ours(2), ours(1, bulk=True), ours(2, bulk=True)]
    for number in range(1, form.rounds + 1):
        for system in systems:
            if system.key not in missing:
                run = _run(ground, system, commands[: _size(system, form)], backlogs, missing)
                if run:
                    runs.setdefault(system.key, []).append(run)
                    say(f"round {number}: {system.label}: {run.rate:,.0f}/s")
        for name, at_once in (("all at once", None), ("1,000 commands at once", 1000)):
            limit = insert_select(ground, commands[: form.bulk], at_once=at_once)
            limits.setdefault(name, []).append(limit)
            say(f"round {number}: PostgreSQL alone, {name}: {limit.rate:,.0f}/s")
    whole = [system for system in systems if system.key not in missing]  # a peer that failed once is not compared
    return {
        "systems": {s.key: {**_row(s.label, runs[s.key]), "ours": s.peer is None} for s in whole},
        "missing": missing,
        "limits": {name: _row(f"PostgreSQL alone, {name}", found) for name, found in limits.items()},
    }


def _ready(ground: Ground, form: Form, missing: dict[str, str]) -> Iterator[System]:
    for system in form.peers:
        try:
            if system.peer:
                prepare(ground.folder.parent, [system.peer])
        except OSError as error:
            missing[system.key] = str(error)
        else:
            yield system


def _size(system: System, form: Form) -> int:
    """Return how many commands make a run."""
    if system.peer:
        return min(form.peer_most, int(system.rate * form.peer_seconds))
    return form.bulk if system.bulk else form.single


def _run(
    ground: Ground, system: System, commands: Sequence[Enroll], backlogs: Backlogs, missing: dict[str, str]
) -> Run | None:
    try:
        return measure(ground, system, ground.fresh(), commands, backlogs)
    except (WrongResultError, TimeoutError) as error:
        if system.peer is None:
            raise
        missing[system.key] = str(error)
        return None


def _row(label: str, runs: list[Run]) -> dict[str, Any]:
    def middle(name: str) -> float:
        return round(float(median(getattr(run, name) for run in runs)), 1)

    return {
        "label": label,
        "commands": runs[0].commands,
        "rates": [round(run.rate, 1) for run in runs],
        "median": middle("rate"),
        "us": {"worker": middle("worker_us"), "postgres": middle("postgres_us"), "redis": middle("redis_us")},
    }


def latency(ground: Ground, form: Form, say: Say) -> dict[str, Any]:
    """Idle latency in turn: ours, plain Celery, which the goal is about, and Celery at its leanest."""
    prepare(ground.folder.parent, [name for name in [PLAIN.peer] if name])
    found: dict[str, list[tuple[list[float], float]]] = {}
    for _ in range(form.rounds):
        for system in (ours(1), PLAIN, SOLO):
            found.setdefault(system.key, []).append(latencies(ground, system, form.latency))
            say(f"idle: {system.label}: {summary(found[system.key]).p50:.1f} ms")
    return {key: asdict(summary(runs)) for key, runs in found.items()}


def grown(ground: Ground, form: Form, say: Say) -> dict[str, Any]:
    """With few rows and with many, in turn; the reads as well. The first run of each only goes before."""
    small, large = form.rows
    runs: dict[int, list[Run]] = {small: [], large: []}
    with growth.filled(ground, small) as few, growth.filled(ground, large) as many:
        say(f"{large:,} rows are there")
        for number in range(form.grown_rounds + 1):
            for rows, url in ((small, few), (large, many)):
                size = form.grown if number else form.grown_before
                run = growth.with_rows(ground, url, rows, size, seed=100 + number, bulk=not number)
                if number:
                    runs[rows].append(run)
                    say(f"{rows:,} rows: {run.rate:,.0f}/s")
        looked_up = {
            str(rows): asdict(reads(url, students=rows // growth.EACH, count=form.reads))
            for rows, url in ((small, few), (large, many))
        }
    return {
        "rates": {str(rows): _row(f"{rows:,} rows", each) for rows, each in runs.items()},
        "reads": looked_up,
    }


def distant(ground: Ground, form: Form, say: Say) -> dict[str, Any]:
    """Workers with a network between them and both servers."""
    runs: dict[int, list[Run]] = {}
    for round_trip, run in distances(ground, size=form.single // 2, rounds=form.rounds):
        runs.setdefault(round_trip, []).append(run)
        say(f"servers {round_trip} ms away: {run.rate:,.0f}/s")
    return {"rates": {str(away): _row(f"{away} ms", each) for away, each in runs.items()}}


def memory(ground: Ground, form: Form, say: Say) -> dict[str, Any]:
    """What one worker holds as it goes on."""
    found = growth.memory(ground, form.memory)
    say(f"memory: {found[0][1]:.0f} MB, after {found[-1][0]:,} commands {found[-1][1]:.0f} MB")
    return {"megabytes": found}


def sending(ground: Ground, form: Form, say: Say) -> dict[str, Any]:
    """How fast commands get into the queue."""
    found = producers(ground, file=form.file, loop=form.loop, rounds=form.rounds)
    say(f"enrollment send FILE: {found.file:,.0f}/s")
    return asdict(found)


def reading(ground: Ground, form: Form, say: Say) -> dict[str, Any]:
    """The query module beside bare psycopg, at 100,000 students and 500,000 rows."""
    with growth.filled(ground, 500_000) as url:
        found = reads(url, students=100_000, count=form.reads)
    say(f"courses_of: {found.courses_of[0]:.0f} µs, psycopg {found.courses_of[1]:.0f} µs")
    return asdict(found)


def serving(ground: Ground, form: Form, say: Say) -> dict[str, Any]:
    """The HTTP gateway beside a bare route, an earlier gateway and the queue."""
    found = web(ground, seconds=form.web, writes=form.latency, rounds=form.rounds, before=form.before)
    say(f"HTTP: {found.lookups[0]:,.0f} lookups/s, {found.writes[0]:,.0f} writes/s")
    return asdict(found)


def starting(ground: Ground, form: Form, say: Say) -> dict[str, Any]:
    """How long things take to start."""
    prepare(ground.folder.parent, [name for name in [PLAIN.peer] if name])
    found = starts(ground, ours(1), PLAIN, rounds=max(3, form.rounds))
    say(f"enrollment --help: {found.help:.0f} ms")
    return asdict(found)


def profile(ground: Ground, form: Form, say: Say) -> dict[str, Any]:
    """Where a command's time goes; with an earlier state of the worker in turn, where the form names one."""
    places = [ROOT, *([form.before] if form.before else [])]
    found, *before = profiles(ground, *places, scale=form.profile)
    say(f"profiled {len(found)} sizes of batch, {len(places)} state{'s' if before else ''} of the worker")
    return {"profiles": found, **({"before": {"profiles": before[0]}} if before else {})}


PARTS: Final[Mapping[str, Callable[[Ground, Form, Say], dict[str, Any]]]] = {
    "backlog": backlog,
    "latency": latency,
    "profile": profile,
    "producers": sending,
    "reads": reading,
    "http": serving,
    "starts": starting,
    "memory": memory,
    "growth": grown,
    "distance": distant,
}
