"""The event stream away, beat killed, and two relays at once: what is committed is told once all the same."""

from collections.abc import Sequence

from tests.acceptance.faults.commands import RELAY, Message
from tests.acceptance.faults.producers import Sender
from tests.acceptance.faults.scenario import Run, Scenario

BACKLOG = (0.5, 1.5)  # seconds without the stream, while commands go on


def _relay_killed(run: Run) -> None:
    """Let events pile up in the outbox, then kill a worker that is about to relay them, and beat."""
    for number in range(run.count):
        _pile_up(run)
        index = number % len(run.harness.workers)
        _send_relays(run, 4)
        run.pause(0, 0.1)
        run.harness.workers[index].kill()
        if run.harness.beat is not None:
            run.harness.beat.kill()
            run.harness.beat.start()
        run.injected += 1
        run.harness.start_worker(index)


def _two_relays(run: Run) -> None:
    """Let both workers relay the same outbox at the same time."""
    for _ in range(run.count):
        _pile_up(run)
        _send_relays(run, 12)
        run.injected += 1
        run.until_work_goes_on()


def _pile_up(run: Run) -> None:
    run.harness.proxies["events"].refuse(on=True)
    run.pause(*BACKLOG)
    run.harness.proxies["events"].refuse(on=False)


def _send_relays(run: Run, count: int) -> None:
    sender = Sender(run.harness.redis.url, run.sent_log)
    for _ in range(count):
        sender.send(Message(RELAY, f"relay-{run.rng.getrandbits(64)}", {}))
    sender.close()


SCENARIOS: Sequence[Scenario] = [
    Scenario("relay and beat killed", 10, 1, _relay_killed, seconds=10),
    Scenario("two relays at once", 10, 1, _two_relays, seconds=5),
]
