"""The same kills and cuts against a stock worker: it must lose commands, or this harness could not see a loss."""

import threading
import time
from collections.abc import Callable, Sequence

from tests.acceptance.faults.commands import Generator
from tests.acceptance.faults.harness import VISIBILITY_TIMEOUT, Harness
from tests.acceptance.faults.oracle import Verdict
from tests.acceptance.faults.producers import Sender
from tests.acceptance.faults.scenario import Run, Scenario
from tests.acceptance.faults.sent_log import SentLog
from worker.local.process import Child

APP = "tests.acceptance.faults.stock_worker"
ENOUGH = 3  # commands lost, after which there is nothing more to show
QUIET = VISIBILITY_TIMEOUT + 5.0  # seconds without a new row, after which nothing comes any more


def _control(fault: Callable[[Run, list[Child]], None]) -> Callable[[Run], None]:
    """Return a row that sends good commands to two stock workers; what it lost goes into `run.control`."""

    def inject(run: Run) -> None:
        harness = run.harness
        harness.rest()
        workers = [harness.new_worker(f"stock{number}", app=APP) for number in (1, 2)]
        stop = threading.Event()
        sending = threading.Thread(target=_send, args=(run, stop), daemon=True)
        try:
            with harness.database() as connection:
                connection.execute("CREATE TABLE IF NOT EXISTS stock_commands (id uuid PRIMARY KEY)")
            for worker in workers:
                worker.start()
            for worker in workers:
                harness.until_ready(worker)
            sending.start()
            fault(run, workers)
            stop.set()
            sending.join()
            run.control = _lost(run, harness, run.sent_log)
        finally:
            stop.set()
            for worker in workers:
                worker.kill()
            harness.forget()
            harness.wake()

    return inject


def _send(run: Run, stop: threading.Event) -> None:
    generator, sender = Generator(run.fork()), Sender(run.harness.redis.url, run.sent_log)
    while not stop.is_set():
        for _ in range(generator.rng.randint(1, 20)):
            sender.send(generator.good())
        stop.wait(0.05)
    sender.close()


def _lost(run: Run, harness: Harness, sent_log: SentLog) -> Verdict:
    """Wait until no more comes, then return what never came."""
    verdict = Verdict(sent_log.commands)
    sent = {command_id for command_id, _ in sent_log.confirmed}
    quiet_since, before, done = time.monotonic(), -1, set[str]()
    while time.monotonic() - quiet_since < QUIET:
        with harness.database() as connection:
            done = {str(row["id"]) for row in connection.execute("SELECT id FROM stock_commands")}
        if sent <= done:
            break
        if len(done) != before:
            quiet_since, before = time.monotonic(), len(done)
        run.pause(0.2, 0.2)
    verdict.lost += [f"command {command_id}: no row" for command_id in sent - done]
    return verdict


def _killed(run: Run, workers: list[Child]) -> None:
    for number in range(run.count):
        run.pause()
        victim = workers[number % len(workers)]
        victim.kill()
        run.injected += 1
        victim.log.write_bytes(b"")
        victim.start()
        run.harness.until_ready(victim)


def _pop_cut(run: Run, _: list[Child]) -> None:
    for _number in range(run.count):
        run.pause(0.2, 0.5)
        run.harness.proxies["broker"].keep_next_answer_to(b"BRPOP")
        run.injected += 1


SCENARIOS: Sequence[Scenario] = [
    Scenario("control, stock transport: answer lost: pop", 10, 2, _control(_pop_cut), traffic=False, seconds=30),
    Scenario("control, stock transport: kill -9", 100, 0, _control(_killed), traffic=False, seconds=30),
]
