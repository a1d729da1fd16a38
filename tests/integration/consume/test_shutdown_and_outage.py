"""Workers that are asked to stop, or to wait."""

import signal
import time
from collections.abc import Callable

import pytest

from tests.eventually import eventually
from tests.fake_worker import VISIBILITY_TIMEOUT
from tests.integration.consume.conftest import Broker, Worker


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["SIGTERM", "SIGQUIT"])
def test_a_shutdown_finishes_the_batch_and_leaves_the_rest_in_the_queue(
    number: signal.Signals, broker: Broker, start: Callable[..., Worker]
) -> None:
    worker = start()
    broker.redis.set("fake:busy", "1")
    sent = broker.send()
    eventually(lambda: broker.batches("fake:begun") == [sent])
    broker.send(count=7)
    worker.signal(number)
    broker.redis.delete("fake:busy")
    worker.wait()
    assert broker.applied() == sent
    assert (broker.redis.llen("enrollment"), broker.redis.exists("unacked")) == (7, 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT], ids=["SIGTERM", "SIGQUIT"])
def test_a_worker_that_waits_for_the_database_shuts_down_and_the_next_goes_on_under_the_same_keys(
    number: signal.Signals, broker: Broker, start: Callable[..., Worker]
) -> None:
    broker.redis.set("fake:away", "1")
    sent = broker.send(count=3)
    worker = start()
    eventually(lambda: broker.batches("fake:begun") == [sent])
    worker.signal(number)
    worker.wait()
    assert broker.applied() == []
    assert [score for _, score in broker.redis.zrange("unacked_index", 0, -1, withscores=True)] == [0, 0, 0]
    broker.redis.delete("fake:away")
    start()
    eventually(lambda: broker.applied() == sent)
    assert all(len(set(broker.keys_begun(id_))) == 1 for id_ in sent)
    eventually(broker.at_rest)


def test_a_batch_that_waits_longer_than_the_visibility_timeout_stays_with_its_worker(
    broker: Broker, start: Callable[..., Worker]
) -> None:
    broker.redis.set("fake:away", "1")
    sent = broker.send(count=3)
    start()
    eventually(lambda: broker.batches("fake:begun") == [sent])
    start()
    time.sleep(VISIBILITY_TIMEOUT + 1)
    broker.redis.delete("fake:away")
    eventually(broker.at_rest)
    assert broker.applied() == sent
