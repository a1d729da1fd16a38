import json
import signal
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.eventually import eventually
from tests.integration.consume.conftest import Broker, Worker


def test_a_message_that_kills_its_worker_takes_nobody_with_it(broker: Broker, start: Callable[..., Worker]) -> None:
    good = broker.send(count=5)
    (killer,) = broker.send(source="die")
    good += broker.send(count=5)
    worker = start()
    for _ in range(4):  # with its batch, with its batch again, then twice alone
        worker.wait()
        broker.expire()
        worker.start()
    eventually(lambda: broker.dead_lettered() == ["too_many_deliveries"])
    eventually(broker.at_rest)
    assert sorted(broker.applied()) == sorted(good)
    assert worker.child.running
    assert len(set(broker.keys_begun(killer))) == 1


@pytest.mark.parametrize("where", ["die-in-parsing", "die-in-reading"])
def test_a_message_that_kills_before_work_on_it_begins_is_a_dead_letter_after_as_many_deaths(
    broker: Broker, start: Callable[..., Worker], where: str
) -> None:
    good = broker.send(count=5)
    broker.push(body=json.dumps([[], {"source": where}, {}]))
    good += broker.send(count=5)
    worker = start()
    for _ in range(4):  # with its batch, with its batch again, then twice alone
        worker.wait()
        broker.expire()
        worker.start()
    eventually(lambda: broker.dead_lettered() == ["too_many_deliveries"])
    eventually(broker.at_rest)
    assert sorted(broker.applied()) == sorted(good)
    assert where in json.loads(broker.redis.lindex("fake:dead_letters", 0))["payload"]
    assert worker.child.running


def test_nothing_is_lost_when_workers_are_killed_under_load(broker: Broker, start: Callable[..., Worker]) -> None:
    broker.redis.set("fake:slow", "0.02")
    sent: list[str] = []
    for round_ in range(6):
        worker = start()
        sent += broker.send(count=300)
        eventually(partial(broker.has_applied, 100 * round_ + 20))
        time.sleep(0.013 * round_)
        worker.signal(signal.SIGKILL)
        worker.wait()
    broker.redis.delete("fake:slow")
    broker.expire()
    start()
    eventually(lambda: set(broker.applied()) == set(sent), patience=40)
    eventually(broker.at_rest)
    assert broker.dead_lettered() == []


def test_messages_that_have_to_come_alone_follow_each_other_at_once(
    broker: Broker, start: Callable[..., Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    suspects = broker.send(count=30, source="die")
    worker = start()
    worker.wait()  # it fell silent with all of them
    for tag in broker.redis.hkeys("unacked"):
        broker.redis.hset("unacked_deliveries", tag, 1)  # and so did a second one
    broker.redis.set("fake:immortal", "1")
    broker.expire()
    monkeypatch.setenv("FAKE_TICK", "2")  # one for each tick would take a minute
    start()
    eventually(lambda: broker.has_applied(30))
    assert sorted(broker.batches()) == sorted([one] for one in suspects)
    eventually(broker.at_rest)
