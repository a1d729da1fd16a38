"""The primary of a Redis with two replicas and three sentinels: killed, frozen, cut off, or replaced by hand."""

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from redis import Redis as Client

from enrollment.client.broker_connection import BrokerConnection, OutgoingMessage
from tests.acceptance.faults.commands import Message
from tests.acceptance.faults.harness import Harness
from tests.acceptance.faults.producers import Sender
from tests.acceptance.faults.proxy import Proxy
from tests.acceptance.faults.scenario import Run, Scenario
from tests.acceptance.faults.sent_log import SentLog
from tests.replicated import ReplicatedRedis

EMBED: Final = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
PATIENCE: Final = 30.0  # seconds for a stable answer


class ConfirmedSender(Sender):
    """Sends as the project's own client does: a message counts as sent when a replica has it."""

    def __init__(self, url: str, sent_log: SentLog) -> None:
        super().__init__(url, sent_log)
        self._broker = BrokerConnection(url, patience=0)

    def _try(self, message: Message) -> None:
        body = json.dumps([message.args, message.kwargs, EMBED])
        self._broker.publish(OutgoingMessage(message.queue, message.task, message.task_id, "", body), ())

    def close(self) -> None:
        self._broker.close()


class SentinelHarness(Harness):
    """The same with a replicated Redis. Producers and the judge go to the server that the sentinels name."""

    def __init__(self) -> None:
        super().__init__()
        self.replicated = ReplicatedRedis(self.folder / "replicated")

    def _start_redis(self) -> None:
        self.replicated.__enter__()

    def _stop_redis(self) -> None:
        self.replicated.__exit__(None, None, None)

    def open_proxies(self) -> None:
        self.proxies["database"] = Proxy(self.postgres.port)

    def _redis_variables(self) -> dict[str, str]:
        return {"ENROLLMENT_BROKER_URL": self.replicated.url}

    def new_sender(self, sent_log: SentLog) -> Sender:
        return ConfirmedSender(self.replicated.url, sent_log)

    def client(self) -> "Client":
        return self.replicated.client()


@contextmanager
def _killed(redis: ReplicatedRedis, number: int) -> Iterator[None]:
    redis.servers[number].kill()
    yield
    redis.servers[number].start()


@contextmanager
def _frozen(redis: ReplicatedRedis, number: int) -> Iterator[None]:
    os.kill(redis.servers[number].pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(redis.servers[number].pid, signal.SIGCONT)


@contextmanager
def _cut_off(redis: ReplicatedRedis, number: int) -> Iterator[None]:
    redis.proxies[number].swallow(on=True)
    try:
        yield
    finally:
        redis.proxies[number].swallow(on=False)


@contextmanager
def _replaced(redis: ReplicatedRedis, _: int) -> Iterator[None]:
    redis.ask_to_fail_over()
    yield


FAULTS: Final[Sequence[Callable[[ReplicatedRedis, int], Any]]] = [_killed, _frozen, _cut_off, _replaced]


def _primary_lost(run: Run) -> None:
    """Take the primary away, wait for another, and let the old one come back: once in each of these ways, by turns."""
    harness = run.harness
    assert isinstance(harness, SentinelHarness)
    for number in range(run.count):
        harness.revive()
        run.pause()
        old = harness.replicated.primary
        with FAULTS[number % len(FAULTS)](harness.replicated, old):
            harness.replicated.wait_for_promotion(old)
            run.injected += 1
            run.until_work_goes_on()
        if number + 1 < run.count:
            harness.replicated.wait_until_whole()


SCENARIOS: Sequence[Scenario] = [
    Scenario("Redis with Sentinel: the primary lost", 24, 1, _primary_lost, seconds=16, harness=SentinelHarness),
]
