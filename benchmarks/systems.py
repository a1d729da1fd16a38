"""Every system that is measured: how its workers start, how its queue is filled, and what stands for it in a table."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from benchmarks.environments import PEERS, environment
from benchmarks.root import ROOT
from enrollment.names import STREAM
from worker.local.stack import environment as inherited

THEIRS: Final = "bench.events"  # the stream of the peers


@dataclass(frozen=True, slots=True)
class System:
    """One way to do the work. In commands, the first word is a program of its environment's `bin`."""

    key: str
    label: str
    workers: tuple[tuple[str, ...], ...]  # a command line per process that is started
    send: tuple[str, ...]  # what fills the queue; the file of commands is added
    rate: int  # commands/s, roughly: how many commands make a run of a few seconds
    peer: str | None = None  # its folder in `peers`; None: the worker of this project
    bulk: bool = False  # commands travel in `apply` messages
    in_database: bool = False  # its queue is in PostgreSQL
    variables: Mapping[str, str] = field(default_factory=dict)
    place: Path = ROOT  # of this project: another checkout is another state of it

    @property
    def stream(self) -> str:
        """The key of the stream its events are on."""
        return THEIRS if self.peer else STREAM

    @property
    def records(self) -> str:
        """The table it records commands in."""
        return "bench_commands" if self.peer else "commands"

    @property
    def cwd(self) -> Path:
        """Where its commands run."""
        return PEERS / self.peer if self.peer else self.place

    def command(self, folder: Path, words: tuple[str, ...]) -> list[str]:
        """Return a command line with its program's whole path."""
        bin_ = environment(folder, self.peer) / "bin" if self.peer else Path(sys.executable).parent
        return [str(bin_ / words[0]), *words[1:]]

    def environment(self, *, database_url: str, redis_url: str) -> dict[str, str]:
        """Return the environment of its processes."""
        if self.peer is None:
            addresses = {
                "ENROLLMENT_DATABASE_URL": database_url,
                "ENROLLMENT_BROKER_URL": redis_url,
                "PYTHONPATH": str(self.place),
            }
        else:
            addresses = {
                "BENCH_DATABASE_URL": database_url,
                "BENCH_REDIS_URL": redis_url,
                "RQ_REDIS_URL": redis_url,
                "PYTHONPATH": f"{PEERS / 'shared'}:{PEERS / self.peer}",
                "VIRTUAL_ENV": "",
            }
        return inherited({**addresses, **self.variables})


def _celery(app: str, *arguments: str) -> tuple[str, ...]:
    return ("celery", "-A", app, "worker", *arguments)


def _solo(app: str, name: str) -> tuple[str, ...]:
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat")
    return _celery(app, "--loglevel=WARNING", "--pool=solo", *quiet, f"--hostname={name}@localhost")


def ours(processes: int, *, bulk: bool = False, **variables: str) -> System:
    """Return the worker of this project, started as its README says."""
    what = "apply messages of 1,000" if bulk else "single commands"
    return System(
        key=f"ours-{'apply' if bulk else 'single'}-{processes}",
        label=f"this worker, {what}, {processes} process{'es' if processes > 1 else ''}",
        workers=tuple(_celery("worker", f"--hostname=worker{number}@localhost") for number in range(processes)),
        send=("enrollment", "send") if bulk else ("python", "-m", "benchmarks.send"),
        rate=(15_000 if bulk else 6_000) * (1 + processes) // 2,
        bulk=bulk,
        variables=variables,
    )


_SEND: Final = ("python", "app.py")

# Plain Celery: what its first steps lead to. The goals of idle latency, and the time to start, are beside this one.
PLAIN: Final = System(
    "celery-orm",
    "Celery, an ORM task per command, prefork 2",
    (_celery("app_orm", "--loglevel=WARNING", "--concurrency=2"),),
    ("python", "app_orm.py"),
    250,
    "celery",
)
TUNED: Final = System(
    "celery-tuned",
    "Celery, tuned statements, four solo processes",
    tuple(_solo("app_tuned", name) for name in ("one", "two", "three", "four")),
    ("python", "app_tuned.py"),
    1000,
    "celery",
)
SOLO: Final = replace(  # for idle latency, one process, as of ours: with nothing else to do, more would only stand by
    TUNED, key="celery-solo", label="Celery, tuned statements, one solo process", workers=TUNED.workers[:1]
)
SYSTEMS: Final = (
    PLAIN,
    TUNED,
    System(
        "huey",
        "Huey, 4 processes",
        (("huey_consumer", "app.huey", "-w", "4", "-k", "process"),),
        ("python", "send.py"),
        1700,
        "huey",
    ),
    System(
        "dramatiq",
        "Dramatiq, 2 processes x 4 threads",
        (("dramatiq", "app", "--processes", "2", "--threads", "4"),),
        _SEND,
        1500,
        "dramatiq",
    ),
    System(
        "taskiq",
        "taskiq (stream), 2 processes",
        (("taskiq", "worker", "app:broker", "--workers", "2", "--max-async-tasks", "10", "--log-level", "WARNING"),),
        _SEND,
        1500,
        "taskiq",
    ),
    System("saq", "SAQ, 4 processes", (("saq", "app.settings"),) * 4, _SEND, 900, "saq"),
    System("arq", "arq, 2 processes", (("arq", "app.WorkerSettings"),) * 2, _SEND, 640, "arq"),
    System(
        "procrastinate",
        "Procrastinate, 2 processes",
        (("procrastinate", "--app=app.app", "worker", "--concurrency=10", "--delete-jobs=always"),) * 2,
        _SEND,
        490,
        "procrastinate",
        in_database=True,
    ),
    System(
        "rq",
        "RQ, 4 processes that do not fork",
        (("rq", "worker", "--quiet", "--worker-class=rq.SimpleWorker", "bench"),) * 4,
        _SEND,
        350,
        "rq",
    ),
    System("none", "no framework (BRPOP), 4 processes", (("python", "app.py"),) * 4, _SEND, 1700, "none"),
)
