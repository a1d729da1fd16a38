"""RabbitMQ as the broker: a cluster of three nodes that are killed, parted, short of memory, or hang up."""

import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final, Self

import amqp

from enrollment.names import BULK_QUEUE, QUEUE
from tests.acceptance.faults.harness import DRAIN_TIMEOUT, Harness
from tests.acceptance.faults.process_faults import die
from tests.acceptance.faults.proxy import random_cut
from tests.acceptance.faults.scenario import PATIENCE, Run, Scenario, Skipped
from tests.acceptance.faults.waits import kill_group, until
from tests.rabbitmq import COOKIE, PortMapper, RabbitMQ

NODES: Final = ("one", "two", "three")
SETTINGS: Final = {
    "cluster_partition_handling": "pause_minority",
    "consumer_timeout": "4000",  # milliseconds; below what a table is locked for
}
# Milliseconds between looks at that timeout, and between counts of what a queue has.
ADVANCED: Final = "[{rabbit, [{channel_tick_interval, 1000}, {quorum_tick_interval, 200}]}]."
LOCKED: Final = 8.0  # seconds
PARTED: Final = (2.0, 6.0)  # seconds
ALARMED: Final = (1.5, 4.0)  # seconds
FROZEN: Final = 12.0  # seconds

SHORT_OF_MEMORY: Final = "rabbit_alarm:set_alarm({{resource_limit, memory, node()}, []})."
ENOUGH_MEMORY: Final = "rabbit_alarm:clear_alarm({resource_limit, memory, node()})."
HANG_UP: Final = 'rabbit_networking:close_all_connections(<<"a colleague">>).'
CLOSE_CHANNELS: Final = "[exit(Channel, kill) || Channel <- rabbit_channel:list()]."


class RabbitHarness(Harness):
    """The queues are in RabbitMQ, the events in Redis. Workers reach each node through a proxy of its name."""

    def __init__(self) -> None:
        super().__init__()
        self._held = ""
        self._mapper = PortMapper(self.folder)
        self.nodes = [
            RabbitMQ(self.folder / name, self._mapper, node=name, peers=NODES, settings=SETTINGS, advanced=ADVANCED)
            for name in NODES
        ]
        self._threads = ThreadPoolExecutor(len(NODES))  # a node ends with the thread that started it

    def __enter__(self) -> Self:
        if shutil.which("rabbitmq-server") is None:
            raise Skipped("rabbitmq-server is not on this machine; on Debian and Ubuntu: apt install rabbitmq-server")
        return super().__enter__()

    def _start_broker(self) -> None:
        self._mapper.start()
        self.nodes[0].start()
        list(self._threads.map(RabbitMQ.start, self.nodes[1:]))

    def _stop_broker(self) -> None:
        for node in self.nodes:
            node.kill()
        self._mapper.stop()
        self._threads.shutdown()

    def _broker_ports(self) -> dict[str, int]:
        return {node.folder.name: node.port for node in self.nodes}

    @property
    def broker_url(self) -> str:
        return ";".join(node.url for node in self.nodes)

    def _broker_through_proxies(self) -> str:
        return ";".join(self._through(node.url, node.folder.name) for node in self.nodes)

    @property
    def in_hand(self) -> set[str]:
        return set()  # RabbitMQ does not tell

    def _queued(self) -> dict[str, int]:
        """Count what is ready; `drain` waits for what is delivered and not acknowledged: asking takes seconds."""
        with self._channel() as channel:
            return {name: channel.queue_declare(name, passive=True).message_count for name in (QUEUE, BULK_QUEUE)}

    def drain(self) -> None:
        super().drain()
        self._held = ""
        if not until(self._none_held, DRAIN_TIMEOUT, soft=True, every=1):
            self._held = "unacknowledged messages"

    def leftovers(self) -> list[str]:
        return [*super().leftovers(), *filter(None, [self._held])]

    def _none_held(self) -> bool:
        node = next(node for node in self.nodes if node.running)
        counts = dict(line.split("\t") for line in node.control("list_queues", "name", "messages").splitlines()[1:])
        return counts.get(QUEUE) == counts.get(BULK_QUEUE) == "0"

    def forget(self) -> None:
        super().forget()
        with self._channel() as channel:
            for name in (QUEUE, BULK_QUEUE):
                with suppress(amqp.NotFound):
                    channel.queue_purge(name)

    def _channel(self) -> Any:
        return _Channel(self.nodes)


class _Channel:
    """A channel on whichever node answers, for as long as it takes."""

    def __init__(self, nodes: Sequence[RabbitMQ]) -> None:
        self._nodes = nodes

    def __enter__(self) -> Any:
        def connected() -> bool:
            for node in self._nodes:
                with suppress(OSError, amqp.AMQPError):
                    self._connection = node.connect()
                    return True
            return False

        until(connected, PATIENCE)
        return self._connection.channel()

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def _of(run: Run) -> RabbitHarness:
    assert isinstance(run.harness, RabbitHarness)
    return run.harness


def _nodes_killed(run: Run) -> None:
    """One after the other; each is back before the next goes, and every third time they are two at once."""
    nodes = _of(run).nodes
    for number in range(run.count):
        run.pause(0.5, 2)
        gone = [nodes[(number + more) % len(nodes)] for more in range(2 if number % 3 == 2 else 1)]
        for node in gone:
            node.kill()
        run.injected += 1
        if len(gone) == 1:
            run.until_work_goes_on()  # before it is back
        for node in gone:
            node.start()
        run.until_work_goes_on("healed")


def _parted(run: Run) -> None:
    """Let one node be parted from the other two: it refuses their cookie, and hangs up."""
    nodes = _of(run).nodes
    for number in range(run.count):
        run.pause(0.5, 2)
        alone = nodes[number % len(nodes)]
        others = [node.node for node in nodes if node is not alone]
        refuse = "".join(f"erlang:set_cookie('{it}', parted), " for it in others)
        alone.run(f"{refuse}[erlang:disconnect_node(N) || N <- nodes()].")
        run.injected += 1
        run.until_work_goes_on()
        run.pause(*PARTED)
        alone.run("".join(f"erlang:set_cookie('{it}', {COOKIE}), " for it in others) + "ok.")
        run.until_work_goes_on("healed")


def _told(code: str, *, pause: tuple[float, float] = (0.2, 1.5)) -> Callable[[Run], None]:
    """Return a fault that a node is told to make."""

    def inject(run: Run) -> None:
        for number in range(run.count):
            run.pause(*pause)
            _of(run).nodes[number % len(NODES)].run(code)
            run.injected += 1
            run.until_work_goes_on()

    return inject


def _short_of_memory(run: Run) -> None:
    for number in range(run.count):
        node = _of(run).nodes[number % len(NODES)]
        run.pause()
        node.run(SHORT_OF_MEMORY)
        try:
            run.pause(*ALARMED)
        finally:
            node.run(ENOUGH_MEMORY)
        run.injected += 1
        run.until_work_goes_on()


def _held_too_long(run: Run) -> None:
    """Lock a table for longer than `consumer_timeout`: RabbitMQ closes the channels of those who hold messages."""
    for _ in range(run.count):
        run.pause()
        with run.harness.database() as connection, connection.transaction():
            connection.execute("LOCK TABLE student_courses IN ACCESS EXCLUSIVE MODE")
            time.sleep(LOCKED)
        run.injected += 1
        run.until_work_goes_on()


def _queues_deleted(run: Run) -> None:
    """Delete both queues while nothing is in them: what is in a queue goes with it. Consumers are cancelled."""
    for number in range(run.count):
        with run.traffic(number):
            run.pause(0.5, 1.5)
        run.harness.drain()
        with _of(run)._channel() as channel:
            for name in (QUEUE, BULK_QUEUE):
                channel.queue_delete(name)
        run.injected += 1
        with run.traffic(1000 + number):
            run.until_work_goes_on()


def _frozen(run: Run) -> None:
    nodes = _of(run).nodes
    for number in range(run.count):
        run.pause(0.5, 2)
        pid = nodes[number % len(nodes)].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(FROZEN)
        finally:
            os.kill(pid, signal.SIGCONT)
        run.injected += 1
        run.until_work_goes_on("healed")


def _cut(run: Run) -> None:
    for _ in range(run.count):
        run.harness.revive()
        direction, size = random_cut(run.rng)
        used = [proxy for name in NODES if (proxy := run.harness.proxies[name]).in_use]
        run.rng.choice(used or [run.harness.proxies[NODES[0]]]).cut_after(direction, size)
        run.injected += 1
        if run.rng.random() < 0.1 or run.injected == 1:
            run.until_work_goes_on()


def _scenario(name: str, full: int, short: int, inject: Callable[[Run], None], **options: Any) -> Scenario:
    return Scenario(f"RabbitMQ: {name}", full, short, inject, harness=RabbitHarness, **options)


SCENARIOS: Sequence[Scenario] = [
    _scenario("nodes killed in turn", 15, 1, _nodes_killed, seconds=30),
    _scenario("a node parted from two", 8, 0, _parted),
    _scenario("a node frozen for 12 s", 5, 0, _frozen),
    _scenario("short of memory", 10, 0, _short_of_memory),
    _scenario("all connections of a node closed", 30, 0, _told(HANG_UP)),
    _scenario("all channels of a node killed", 30, 0, _told(CLOSE_CHANNELS)),
    _scenario("connections cut at random bytes", 50, 0, _cut),
    _scenario("messages held beyond consumer_timeout", 5, 0, _held_too_long),
    _scenario("queues deleted, consumers cancelled", 10, 0, _queues_deleted, traffic=False),
    _scenario("kill -9 of the worker", 50, 0, die(kill_group)),
]
