"""What came again: how it is gathered, and what is counted of it. No RabbitMQ is needed for this."""

from contextlib import suppress
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from redis import Redis

from worker.consume.suspects import Suspects
from worker.publishing import connect

STREAM = "stream"


@dataclass
class Consumer:
    """Applies what it is given, one batch per flush; it dies in the batch that has `deadly`."""

    deadly: str = ""
    batches: list[list[str]] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    gathered: list[Any] = field(default_factory=list)
    suspects: Any = None
    held: bool = False
    hub: Any = None
    prefetch_multiplier: int = 3

    @property
    def batch(self) -> Any:
        return self

    def goes_on(self) -> bool:
        return True

    def receive(self, delivery: Any) -> None:
        self.gathered.append(delivery)

    def dead_letter(self, delivery: Any, code: str, reason: str) -> None:  # noqa: ARG002 (the consumer's)
        self.dead.append(delivery.body.decode())

    def flush(self) -> None:
        deliveries, self.gathered = self.gathered, []
        bodies = [delivery.body.decode() for delivery in deliveries]
        if bodies:
            self.batches.append(bodies)
        if self.deadly in bodies:
            raise SystemExit
        self.suspects.settle(deliveries)


def receive(client: Redis, names: str, deadly: str = "") -> Consumer:
    """Let a new worker receive these messages, all of which came before."""
    consumer = Consumer(deadly)
    consumer.hub = SimpleNamespace(call_later=lambda *_: None)
    consumer.suspects = Suspects(consumer, client, STREAM)
    for name in names:
        consumer.suspects.add(SimpleNamespace(headers={"id": name}, body=name.encode(), channel=None))
    with suppress(SystemExit):
        consumer.suspects._examine()
    return consumer


def test_what_came_again_comes_together_then_alone_and_the_fifth_time_it_is_a_dead_letter(redis_client: Redis) -> None:
    assert receive(redis_client, "abc", deadly="b").batches == [["a", "b", "c"]]
    assert receive(redis_client, "dabc", deadly="b").batches == [["d"], ["a"], ["b"]]
    assert receive(redis_client, "bc", deadly="b").batches == [["b"]]
    last = receive(redis_client, "bc", deadly="b")
    assert (last.batches, last.dead) == ([["c"]], ["b"])


def test_a_batch_of_them_is_no_larger_than_others(redis_client: Redis) -> None:
    assert receive(redis_client, "abcdefg").batches == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


def test_nothing_stays_of_what_was_applied(redis_client: Redis) -> None:
    receive(redis_client, "abc")
    assert redis_client.keys() == []


def test_what_a_worker_had_begun_when_it_lost_its_connection_is_forgiven(redis_client: Redis) -> None:
    for _ in range(9):
        consumer = receive(redis_client, "ab", deadly="a")
        assert consumer.batches == [["a", "b"]]
        consumer.suspects.forgive()


def test_while_a_lock_holds_a_batch_the_rest_waits(redis_client: Redis) -> None:
    consumer = Consumer(held=True)
    later: list[Any] = []
    consumer.hub = SimpleNamespace(call_later=lambda _, act: later.append(act))
    consumer.suspects = Suspects(consumer, redis_client, STREAM)
    consumer.suspects.add(SimpleNamespace(headers={"id": "a"}, body=b"a", channel=None))
    later.pop()()
    assert consumer.batches == []
    consumer.held = False
    later.pop()()
    assert consumer.batches == [["a"]]


def test_what_a_lost_connection_left_is_not_applied(redis_client: Redis) -> None:
    consumer = Consumer()
    later: list[Any] = []
    consumer.hub = SimpleNamespace(call_later=lambda _, act: later.append(act))
    consumer.suspects = Suspects(consumer, redis_client, STREAM)
    consumer.suspects.add(SimpleNamespace(headers={"id": "a"}, body=b"a", channel=None))
    consumer.suspects = Suspects(consumer, redis_client, STREAM)
    later.pop()()
    assert consumer.batches == []


def test_without_redis_messages_are_applied_and_nothing_is_counted() -> None:
    assert receive(connect("redis://127.0.0.1:1"), "ab").batches == [["a", "b"]]
