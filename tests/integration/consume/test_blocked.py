"""A batch that cannot even be put off, because a table is locked: it is held, and the worker goes on answering."""

import signal
from collections.abc import Callable

import pytest

from tests.eventually import eventually
from tests.integration.consume.conftest import Broker, Worker


def test_a_held_batch_is_tried_again_and_applied_once_and_the_worker_answers_meanwhile(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    broker.redis.set("fake:locked", "1")
    sent = broker.send(count=3)
    start()
    eventually(lambda: broker.batches("fake:begun")[:2] == [sent] * 2)
    later = broker.send(count=2)
    with broker.app.connection_for_write() as line:
        assert eventually(lambda: broker.app.control.ping(timeout=1.0, connection=line))
    broker.redis.delete("fake:locked")
    eventually(lambda: broker.applied() == sent + later)
    eventually(broker.at_rest)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["SIGTERM", "SIGQUIT"])
def test_a_worker_that_holds_a_batch_shuts_down_and_gives_it_back_as_no_death(
    number: signal.Signals, broker: Broker, start: Callable[..., Worker]
) -> None:
    broker.redis.set("fake:locked", "1")
    sent = broker.send(count=3)
    worker = start()
    for _ in range(4):  # more often than a message may be found with a dead worker
        broker.redis.delete("fake:begun")
        eventually(lambda: sorted({id_ for batch in broker.batches("fake:begun") for id_ in batch}) == sorted(sent))
        worker.signal(number)
        worker.wait()
        worker.start()
    broker.redis.delete("fake:locked")
    eventually(lambda: sorted(broker.applied()) == sorted(sent))
    assert broker.dead_lettered() == []
    eventually(broker.at_rest)


def test_a_worker_that_is_killed_while_it_holds_a_batch_loses_nothing(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    broker.redis.set("fake:locked", "1")
    worker = start()
    sent = broker.send(count=3)
    eventually(lambda: broker.batches("fake:begun"))
    worker.signal(signal.SIGKILL)
    worker.wait()
    broker.redis.delete("fake:locked")
    start()
    eventually(lambda: sorted(broker.applied()) == sorted(sent))
    eventually(broker.at_rest)
