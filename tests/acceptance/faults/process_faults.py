"""Workers that are killed, asked to stop, or frozen."""

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Sequence

from tests.acceptance.faults.commands import KILLS, Message
from tests.acceptance.faults.harness import VISIBILITY_TIMEOUT
from tests.acceptance.faults.scenario import PATIENCE, Run, Scenario
from tests.acceptance.faults.waits import kill_group, until
from worker.local.process import Child
from worker.local.process import run as run_command

LIVES = 180  # seconds in which a message must have taken all the lives that it gets
STEP = 0.3  # seconds between the two signals
BOTH = 0.1  # of the kills hit all workers
FIRST = 0.2  # of the kills hit the process that started the others
EARLY = 0.2  # of the kills are followed by the next before the worker is ready again


def die(kill: Callable[[Child], None], *, aimed: bool = False) -> Callable[[Run], None]:
    """Return a fault that kills the workers in turns; when aimed, at one that has messages in hand."""

    def inject(run: Run) -> None:
        for number in range(run.count):
            run.harness.revive()
            run.pause()
            both = run.rng.random() < BOTH
            victims = range(len(run.harness.workers)) if both else [number % len(run.harness.workers)]
            if aimed:
                until(lambda: run.harness.in_hand, 1, soft=True, every=0)
            for index in victims:
                kill(run.harness.workers[index])
            begin, held = time.monotonic(), run.harness.in_hand
            run.injected += 1
            for index in victims:
                run.harness.start_worker(index, wait=run.rng.random() > EARLY)
            if number >= run.count - 3:  # to wait each time would leave less time for killing
                run.until_redelivered(held, begin)

    return inject


def _stop(*signals: signal.Signals) -> Callable[[Run], None]:
    """Return a fault that asks the workers to stop, in turns."""

    def inject(run: Run) -> None:
        for number in range(run.count):
            index = number % len(run.harness.workers)
            victim = run.harness.workers[index]
            run.harness.revive()
            run.pause()
            begin = time.monotonic()
            for each in signals:
                if each is not signals[0]:
                    time.sleep(run.rng.uniform(0, STEP))
                victim.send(each)
            victim.wait(60)
            run.measure("shutdown", time.monotonic() - begin)
            victim.kill()
            run.injected += 1
            run.harness.start_worker(index)

    return inject


def _freeze(run: Run) -> None:
    """Stop a worker, at best with messages in hand, for longer than the visibility timeout; then let it go on."""
    for number in range(run.count):
        victim = run.harness.workers[number % len(run.harness.workers)]
        run.pause()
        until(lambda: run.harness.in_hand, 1, soft=True, every=0)
        os.kill(victim.pid, signal.SIGSTOP)
        try:
            time.sleep(VISIBILITY_TIMEOUT + run.rng.uniform(1, 3))
        finally:
            os.kill(victim.pid, signal.SIGCONT)
        run.injected += 1
        run.until_work_goes_on()


def _die_in_pairs(run: Run) -> None:
    """Kill the processes of `-c 2` in turns, and now and then the one that started them; nobody else works."""
    run.harness.rest()
    pair = run.harness.new_worker("pair", "-c", "2")
    try:
        for _ in range(run.count):
            if not pair.running:
                pair.log.write_bytes(b"")
                pair.start()
                run.harness.until_ready(pair, processes=2)
            run.pause()
            until(lambda: run.harness.in_hand, 1, soft=True, every=0)
            begin, held = time.monotonic(), run.harness.in_hand
            if run.rng.random() < FIRST:
                pair.kill()
            else:
                os.kill(run.rng.choice(_processes_of(pair)), signal.SIGKILL)
                run.until_redelivered(held, begin)
            run.injected += 1
        assert not pair.running or pair.stop() == 0, f"{pair.name} ended with {pair.returncode}: {pair.tail()}"
    finally:
        pair.kill()
        run.harness.wake()


def _processes_of(worker: Child) -> list[int]:
    """Return the processes that it has started, each by its id; at least one."""
    found: list[int] = []

    def look() -> list[int]:
        listed = (line.split() for line in run_command(["ps", "-A", "-o", "pid=,ppid="]).stdout.splitlines())
        found[:] = [int(pid) for pid, parent in listed if int(parent) == worker.pid]
        return found

    until(look, PATIENCE)
    return found


def _unread(run: Run) -> None:
    """Send messages that kill whoever looks into them; let the worker live again and again."""
    run.harness.rest()
    deadly = run.harness.new_worker("deadly", app="tests.acceptance.faults.deadly_worker")
    try:
        with run.harness.client() as client:
            for _ in range(run.count):
                marker = f"marker-{uuid.UUID(int=run.rng.getrandbits(128), version=4)}"
                message = Message("", "", {}, (), (marker,))
                run.sent_log.sending(message)
                client.lpush("enrollment", json.dumps({"headers": {"id": marker, "task": KILLS}}))
                run.sent_log.sent(message)
                run.injected += 1
                run.pause()

        def over() -> bool:
            if not deadly.running:
                deadly.log.write_bytes(b"")
                deadly.start()
            with run.harness.database() as connection:
                query = "SELECT FROM dead_letters WHERE code = 'too_many_deliveries'"
                return len(connection.execute(query).fetchall()) == run.count

        until(over, LIVES * run.count)
    finally:
        deadly.kill()
        run.harness.wake()


SCENARIOS: Sequence[Scenario] = [
    Scenario("kill -9 of the worker", 100, 2, die(Child.kill), seconds=16),
    Scenario("kill -9 of the worker, messages in hand", 100, 2, die(Child.kill, aimed=True), seconds=16),
    Scenario("kill -9 of the process group", 100, 2, die(kill_group), seconds=16),
    Scenario("kill -9 of a process of -c 2", 50, 2, _die_in_pairs, seconds=20),
    Scenario("SIGTERM", 50, 1, _stop(signal.SIGTERM), seconds=8),
    Scenario("SIGQUIT", 50, 1, _stop(signal.SIGQUIT), seconds=8),
    Scenario("SIGTERM, then SIGQUIT", 50, 1, _stop(signal.SIGTERM, signal.SIGQUIT), seconds=8),
    Scenario("a message that kills before it is read", 5, 1, _unread, seconds=40),
    Scenario("frozen for longer than the visibility timeout", 10, 1, _freeze, seconds=12),
]
