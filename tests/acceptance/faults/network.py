"""Connections that break between the workers and what they need: everywhere, at every moment, and for too long."""

import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from tests.acceptance.faults.proxy import random_cut
from tests.acceptance.faults.scenario import Run, Scenario
from tests.root import ROOT

TOO_LONG: Final = 12.0  # seconds; above the socket timeouts (5) and the answer that is waited for (7)


def _sha(name: str) -> bytes:
    """Return how Redis knows one of the worker's scripts: all that tells a claim from another call on the wire."""
    return hashlib.sha1((ROOT / "worker" / "transport" / name).read_bytes(), usedforsecurity=False).hexdigest().encode()


CLAIM: Final = _sha("claim.lua")
COMMIT: Final = b"COMMIT"
PUBLISH: Final = b":batch:"  # the key that remembers a batch
ACKNOWLEDGE: Final = _sha("acknowledge.lua")


def _clients_killed(run: Run) -> None:
    with run.harness.client() as client:
        for _ in range(run.count):
            run.pause()
            kinds = run.rng.choice([["normal"], ["pubsub"], ["normal", "pubsub"]])
            for kind in kinds:
                client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            run.injected += 1
            if run.rng.random() < 0.1 or run.injected == 1:
                run.until_work_goes_on()


def _cut(proxy: str) -> Callable[[Run], None]:
    def inject(run: Run) -> None:
        for _ in range(run.count):
            run.harness.revive()
            direction, size = random_cut(run.rng)
            run.harness.proxies[proxy].cut_after(direction, size)
            run.injected += 1
            if run.rng.random() < 0.1 or run.injected == 1:
                run.until_work_goes_on()

    return inject


def _black_hole(proxy: str) -> Callable[[Run], None]:
    def inject(run: Run) -> None:
        for _ in range(run.count):
            run.pause(0.5, 2)
            run.harness.proxies[proxy].swallow(on=True)
            time.sleep(TOO_LONG)
            run.harness.proxies[proxy].swallow(on=False)
            run.injected += 1
            run.until_work_goes_on("healed")

    return inject


def _answer_lost(proxy: str, word: bytes) -> Callable[[Run], None]:
    """Return a fault that lets the request pass and resets the connection in place of the answer."""

    def inject(run: Run) -> None:
        for _ in range(run.count):
            run.pause(0.2, 0.8)
            run.harness.proxies[proxy].keep_next_answer_to(word)
            run.injected += 1
            run.until_work_goes_on()

    return inject


SCENARIOS: Sequence[Scenario] = [
    Scenario("broker connections killed", 100, 3, _clients_killed, seconds=5),
    Scenario("broker connections cut at random bytes", 100, 4, _cut("broker"), seconds=6),
    Scenario("database connections cut at random bytes", 100, 4, _cut("database"), seconds=6),
    Scenario("events' connections cut at random bytes", 50, 3, _cut("events"), seconds=6),
    Scenario("broker in a black hole for 12 s", 5, 1, _black_hole("broker"), seconds=22),
    Scenario("database in a black hole for 12 s", 5, 1, _black_hole("database"), seconds=22),
    Scenario("events in a black hole for 12 s", 5, 1, _black_hole("events"), seconds=22),
    Scenario("answer lost: claim", 10, 1, _answer_lost("broker", CLAIM), seconds=10),
    Scenario("answer lost: COMMIT", 10, 2, _answer_lost("database", COMMIT), seconds=4),
    Scenario("answer lost: publish", 10, 2, _answer_lost("events", PUBLISH), seconds=4),
    Scenario("answer lost: acknowledgement", 10, 1, _answer_lost("broker", ACKNOWLEDGE), seconds=10),
]
