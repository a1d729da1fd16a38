"""`make ha`: all that is highly available on one machine, and one thing after another killed while commands flow.

The script promotes the standby, as Patroni would. It ends with 1 when anything was lost, duplicated or wrong.
"""

import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx
import redis
from rich.console import Console
from rich.table import Table

from tests.acceptance.faults.commands import STUDENTS
from tests.acceptance.faults.failover import Replicated
from tests.acceptance.faults.harness import START_TIMEOUT, STREAM
from tests.acceptance.faults.scenario import PATIENCE, Outcome, Run, Scenario, run_scenario
from tests.acceptance.faults.sentinel_faults import SentinelHarness
from tests.acceptance.faults.table import details
from tests.acceptance.faults.waits import until
from tests.replicated import until as until_redis
from worker.local.errors import LocalError
from worker.local.process import Child
from worker.local.server import free_port
from worker.local.stack import environment

GATEWAYS: Final = 2
SETTLED: Final = 4.0  # seconds that an act goes on once work does
console: Final = Console(highlight=False)


class HighlyAvailable(Replicated, SentinelHarness):
    """PostgreSQL with a synchronous standby, Redis with two replicas and three sentinels, workers, two gateways."""

    def __init__(self) -> None:
        super().__init__()
        self.gateways: list[tuple[Child, str]] = []  # with their addresses

    @property
    def variables(self) -> dict[str, str]:
        said = super().variables
        return {**said, "ENROLLMENT_READ_URL": said["ENROLLMENT_DATABASE_URL"], "ENROLLMENT_GATEWAY_RATE": "0"}

    def start_gateways(self) -> None:
        for number in range(1, GATEWAYS + 1):
            port, log = free_port(), self.folder / f"gateway{number}.log"
            command = [str(Path(sys.executable).parent / "enrollment"), "gateway", "--port", str(port)]
            child = Child(name=f"gateway {number}", command=command, log=log, env=environment(self.variables))
            self._children.append(child)
            self.gateways.append((child, f"http://127.0.0.1:{port}"))
            child.start()
        with httpx.Client() as client:
            until(lambda: all(_answers(client, f"{url}/healthz") for _, url in self.gateways), START_TIMEOUT)

    def alive(self) -> str:
        """Say what runs, in words."""
        counts = {
            "workers": sum(it.running for it in self.workers),
            "PostgreSQL": sum(it.running for it in self.pair.nodes),
            "Redis": sum(it.running for it in self.replicated.servers),
            "sentinels": sum(it.running for it in self.replicated.sentinels),
            "gateways": sum(it.running for it, _ in self.gateways),
        }
        return ", ".join(f"{what} {count}" for what, count in counts.items())


def _look_up(urls: list[str], answered: list[float], stop: threading.Event) -> None:
    """Look students up, ten times a second, at the gateway that answers; note when (`time.time()`) it did."""
    with httpx.Client(timeout=5) as client:
        while not stop.wait(0.1):
            if _answers(client, f"{urls[0]}/students/{STUDENTS[len(answered) % len(STUDENTS)]}/courses"):
                answered.append(time.time())
            else:
                urls.append(urls.pop(0))  # as a load balancer does


def _answers(client: httpx.Client, url: str) -> bool:
    with suppress(httpx.HTTPError):
        return client.get(url).is_success
    return False


@dataclass
class Scene:
    """The acts, and of each the longest pause between events and between lookups, in seconds."""

    run: Run
    harness: HighlyAvailable
    answered: list[float] = field(default_factory=list)
    longest: list[tuple[str, float, float]] = field(default_factory=list)

    @contextmanager
    def act(self, title: str) -> Iterator[None]:
        """Do what is in the block, wait until work goes on, and say how long nobody heard of it."""
        begin = time.time()
        yield
        done = time.time()
        until_redis(lambda: self._told_since(done), PATIENCE)
        time.sleep(SETTLED)
        now = time.time()
        lookups = [at for at in self.answered if begin <= at <= now]
        pauses = [_longest([begin, *times, now]) for times in (self._told_since(begin), lookups)]
        self.longest.append((title, pauses[0], pauses[1]))
        self.run.injected += 1
        console.print(
            f"  [green]✓[/] {title} [dim](events paused {pauses[0]:.1f} s)\n    alive: {self.harness.alive()}[/]"
        )

    def _told_since(self, begin: float) -> list[float]:
        """Return when events came on the stream: Redis writes it in their ids."""
        with self.harness.client() as client:
            entries: Any = client.xrange(STREAM, min=str(int(begin * 1000)))
        return [int(entry_id.partition("-")[0]) / 1000 for entry_id, _ in entries]


def _longest(times: list[float]) -> float:
    return max(later - earlier for earlier, later in pairwise(times))


def _acts(scene: Scene) -> None:
    harness, servers = scene.harness, scene.harness.replicated
    with scene.act("nothing is killed, to compare with"):
        pass
    with scene.act("a worker killed; another goes on"):
        harness.workers[0].kill()
    with scene.act("the worker started again, and a third one added"):
        harness.start_worker(0)
        harness.start_worker(len(harness.workers))
    old = servers.primary
    with scene.act("the primary of Redis killed, a replica promoted"):
        servers.servers[old].kill()
        servers.wait_for_promotion(old)
    with scene.act("the old one back, as a replica"):
        servers.servers[old].start()
        servers.wait_until_whole()
    with scene.act("the primary of PostgreSQL killed, the standby promoted"):
        harness.pair.primary.kill()
        harness.promote()
    with scene.act("the old one back, as the synchronous standby"):
        harness.rejoin()
    with scene.act("a sentinel killed"):
        servers.sentinels[0].kill()
    with scene.act("the sentinel started again"):
        servers.sentinels[0].start()
        servers.wait_until_whole()
    with scene.act("a gateway killed; the other one answers"):
        harness.gateways[0][0].kill()


def _play(run: Run) -> None:
    harness = run.harness
    assert isinstance(harness, HighlyAvailable)
    scene, stop = Scene(run, harness), threading.Event()
    urls = [url for _, url in harness.gateways]
    someone = threading.Thread(target=_look_up, args=(urls, scene.answered, stop), daemon=True)
    someone.start()
    try:
        _acts(scene)
    finally:
        stop.set()
        someone.join()
    table = Table("longest pause, s", box=None, header_style="dim", padding=(0, 1))
    for column in ("events", "lookups"):
        table.add_column(column, justify="right")
    for title, events, lookups in scene.longest:
        table.add_row(title, f"{events:.1f}", f"{lookups:.1f}")
    console.print("", table, f"\n {len(scene.answered):,} lookups answered", sep="\n")


def _counts(outcome: Outcome, harness: HighlyAvailable) -> None:
    verdict = outcome.verdict
    counts = {
        "commands sent": verdict.commands,
        "applied": _count(harness, "commands WHERE outcome = 'applied'"),
        "events": harness.told,
        "dead letters": _count(harness, "dead_letters"),
        "lost": len(verdict.lost),
        "duplicated": len(verdict.duplicated),
        "wrong": len(verdict.wrong),
    }
    console.print(" " + ", ".join(f"{count:,} {what}" for what, count in counts.items()))
    if outcome.good:
        console.print("[bold green]Every command took effect exactly once.[/]")
    else:
        logs = str(harness.keep_logs(outcome.name))
        console.print(details(replace(outcome, logs=logs)), style="red", markup=False)


def _count(harness: HighlyAvailable, rows: str) -> int:
    with harness.database() as connection:
        row = connection.execute(f"SELECT count(*) AS count FROM {rows}".encode()).fetchone()
    return row["count"] if row else 0


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    harness = HighlyAvailable()
    try:
        console.print("Starting 2 PostgreSQL, 3 Redis, 3 sentinels, 2 workers, beat, 2 gateways …")
        with harness:
            harness.start_gateways()
            scenario = Scenario("the highly available stack", 1, 0, _play)
            outcome = run_scenario(harness, scenario, 1, random.SystemRandom().randrange(1_000_000))
            _counts(outcome, harness)
    except (LocalError, redis.RedisError, AssertionError) as error:
        console.print(f"[bold red]{error}[/]")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0 if outcome.good else 1


if __name__ == "__main__":
    sys.exit(main())
