from collections import Counter
from collections.abc import Callable
from typing import Any

from enrollment.errors import DeadLetterCode
from tests.integration.transport.conftest import DELIVERIES, UNACKED, Receiver, expire_all, state


def test_requeued_means_unchanged_and_next_in_turn(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1", "2")
    before = redis_client.lrange("a", 0, -1)
    mine = receiver(prefetch=1)
    mine.drain()[0].requeue()
    assert redis_client.lrange("a", 0, -1) == before
    assert state(redis_client) == (2, 0, 0)


def test_rejected_means_gone(receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any) -> None:
    send("1")
    receiver().drain()[0].reject()
    assert state(redis_client) == (0, 0, 0)


def test_closing_gives_back_what_was_not_started_in_its_old_order(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send(*"1234")
    before = redis_client.lrange("a", 0, -1)
    mine = receiver(prefetch=3)
    mine.drain(count=3)
    mine.connection.release()
    assert redis_client.lrange("a", 0, -1) == before
    assert state(redis_client) == (4, 0, 0)


def test_what_was_started_is_claimed_next_under_its_tag_and_nothing_is_held_against_it(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1", "2", "3")
    first = receiver(prefetch=3)
    tags = [message.delivery_tag for message in first.drain(count=3)]
    first.channel.mark_started(tags[:2])
    first.connection.release()
    assert state(redis_client) == (1, 2, 2)
    again = receiver().drain(count=3)
    assert [message.headers["id"] for message in again] == ["1", "2", "3"]
    assert [message.delivery_tag for message in again][:2] == tags[:2]


def test_messages_of_a_worker_that_fell_silent_come_together_once_then_one_by_one_under_their_tags(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1", "2")
    silent = receiver()
    tags = {message.delivery_tag for message in silent.drain(count=2)}
    silent.vanish()
    expire_all(redis_client)
    send("3")
    silent = receiver()
    assert {message.delivery_tag for message in silent.drain(count=2)} == tags
    silent.vanish()
    expire_all(redis_client)
    heir = receiver()
    claims = []
    for _ in range(3):
        messages = heir.drain()
        claims.append({message.delivery_tag for message in messages})
        heir.channel.ack_many([message.delivery_tag for message in messages])
    assert [len(claim) for claim in claims] == [1, 1, 1]
    assert set.union(*claims[:2]) == tags
    assert (*state(redis_client), redis_client.hlen(DELIVERIES)) == (0, 0, 0, 0)


def test_no_more_than_fifty_come_together_and_no_more_than_their_queue_allows(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send(*(str(number) for number in range(60)))
    send(*(str(number) for number in range(60, 70)), queue="b")
    silent = receiver(queues=("a", "b"))
    silent.drain(count=70)
    silent.vanish()
    expire_all(redis_client)
    heir = receiver(queues=("a", "b"), claim_limits={"b": 4})
    claims = []
    while redis_client.hlen(UNACKED):
        claims.append(Counter("ab"[int(id_) >= 60] for id_ in heir.ids()))
        heir.channel.ack_many(list(heir.channel.qos.claims))
    assert sum(claims, Counter()) == {"a": 60, "b": 10}
    assert (max(claim["a"] for claim in claims), max(claim["b"] for claim in claims)) == (50, 4)


def test_a_message_that_four_workers_died_of_is_garbage(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1")
    (sent,) = redis_client.lrange("a", 0, -1)
    for _ in range(4):
        victim = receiver()
        assert victim.ids() == ["1"]
        victim.vanish()
        expire_all(redis_client)
    last = receiver()
    assert last.ids() == []
    assert [(raw, code) for raw, code, _ in last.garbage] == [(sent.encode(), DeadLetterCode.TOO_MANY_DELIVERIES)]
    assert (*state(redis_client), redis_client.hlen(DELIVERIES)) == (0, 0, 0, 0)


def test_a_message_that_reached_nobody_is_never_garbage(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    """The answers to its claims are lost on the way, again and again."""
    send("1")
    for _ in range(8):
        lost = receiver(queues=("b",))
        limits = {"limit": 10, "max_bytes": 1_000, "max_message": 1_000}
        assert len(lost.channel.claims.take([lost.channel._source("a")], **limits)) == 1
        lost.vanish()
        expire_all(redis_client)
    last = receiver()
    assert last.ids() == ["1"]
    last.channel.ack_many(list(last.channel.qos.claims))
    assert (*state(redis_client), redis_client.hlen(DELIVERIES)) == (0, 0, 0, 0)


def test_a_message_that_is_given_back_in_order_is_never_garbage(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1")
    silent = receiver()
    silent.drain()
    silent.vanish()
    expire_all(redis_client)
    for _ in range(8):
        stopped = receiver()
        assert stopped.ids() == ["1"]
        stopped.connection.release()
    assert receiver().ids() == ["1"]


def test_a_message_that_takes_time_before_it_kills_is_garbage_in_the_end(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1")
    for _ in range(9):
        victim = receiver()
        assert victim.ids() == ["1"]
        victim.channel.touch()
        victim.vanish()
        expire_all(redis_client)
    last = receiver()
    assert last.ids() == []
    assert [code for _, code, _ in last.garbage] == [DeadLetterCode.TOO_MANY_DELIVERIES]
    assert (*state(redis_client), redis_client.hlen(DELIVERIES)) == (0, 0, 0, 0)


def test_what_is_touched_does_not_expire_and_a_death_after_that_is_not_counted(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1", "2")
    patient = receiver()
    patient.drain(count=2)
    expire_all(redis_client)
    patient.channel.touch()
    heir = receiver()
    assert heir.ids(timeout=1) == []
    patient.vanish()
    expire_all(redis_client)
    assert sorted(heir.ids(count=2)) == ["1", "2"]


def test_a_claim_that_somebody_else_has_taken_over_is_not_given_back(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1")
    slow = receiver()
    slow.drain()
    expire_all(redis_client)
    heir = receiver()
    assert heir.ids() == ["1"]
    slow.connection.release()
    assert state(redis_client) == (0, 1, 1)


def test_a_claim_that_two_have_touched_belongs_to_the_later_one(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1")
    slow = receiver()
    slow.drain()
    slow.channel.touch()
    expire_all(redis_client)
    heir = receiver()
    assert heir.ids() == ["1"]
    heir.channel.touch()
    expire_all(redis_client)
    slow.channel.touch()
    slow.connection.release()
    assert state(redis_client) == (0, 1, 1)
    assert receiver().ids() == ["1"], "the touch of the former owner made nothing young"


def test_a_claim_that_was_held_too_long_is_let_go_of_and_comes_again(
    receiver: Callable[..., Receiver], send: Callable[..., None]
) -> None:
    send("1")
    mine = receiver(visibility_timeout=1)
    (message,) = mine.drain()
    (again,) = mine.drain(timeout=5)
    assert again.delivery_tag == message.delivery_tag


def test_after_a_lost_connection_everything_is_given_back_once(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1", "2")
    mine = receiver()
    mine.drain(count=2)
    redis_client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    claims = list(mine.channel.qos.claims.values())
    mine.connection.collect(socket_timeout=1)
    assert receiver(queues=["b"]).channel.claims.give_back(claims) == 0  # as if the first answer had been lost
    assert state(redis_client) == (2, 0, 0)
