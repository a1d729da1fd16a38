import json
import signal
import time
from collections import Counter
from collections.abc import Callable
from os import kill
from typing import Any

import pytest
from kombu import Connection
from kombu.asynchronous import Hub
from redis import ConnectionError as RedisConnectionError
from redis.exceptions import OutOfMemoryError

from enrollment.errors import DeadLetterCode
from tests.integration.transport.conftest import INDEX, STOCK, UNACKED, Receiver, state
from worker.local.redis import Redis as RedisServer
from worker.transport import poller


def test_what_is_delivered_is_on_record_as_it_was_sent(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1")
    (sent,) = redis_client.lrange("a", 0, -1)
    (message,) = receiver().drain()
    assert state(redis_client) == (0, 1, 1)
    assert redis_client.hget(UNACKED, message.delivery_tag) == f'[{sent},"","a"]'
    server_time, _ = redis_client.time()
    assert abs(redis_client.zscore(INDEX, message.delivery_tag) - server_time) < 5
    assert json.loads(message.body) == [[], {}, {}]


def test_one_claim_takes_the_free_prefetch_in_order_and_no_more(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send(*"12345")
    mine = receiver(prefetch=3)
    assert mine.ids(count=4, timeout=1) == ["1", "2", "3"]
    assert state(redis_client) == (2, 3, 3)
    mine.channel.ack_many(list(mine.channel.qos.claims))
    assert state(redis_client) == (2, 0, 0)
    assert mine.ids(count=2) == ["4", "5"]


def test_waiting_moves_nothing(receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any) -> None:
    waiting_receiver = receiver()
    assert waiting_receiver.ids(timeout=0.5) == []
    assert [client["cmd"] for client in redis_client.client_list()].count("blmove") == 1
    send("1")
    time.sleep(0.3)  # the server answers the waiting client; nobody claims
    assert state(redis_client) == (1, 0, 0)
    assert waiting_receiver.ids() == ["1"]


def test_a_claim_is_capped_by_bytes_but_a_message_larger_than_that_comes_alone(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    mine = receiver(claim_bytes=4_000)
    send("large", body="x" * 8_000)
    send("1", "2", "3", body="x" * 900)
    sizes = []
    for _ in range(3):
        sizes.append(mine.ids())
        mine.channel.ack_many(list(mine.channel.qos.claims))
    assert sizes == [["large"], ["1", "2"], ["3"]]
    assert state(redis_client) == (0, 0, 0)


def test_two_queues_take_turns_and_the_one_with_a_limit_keeps_to_it(
    receiver: Callable[..., Receiver], send: Callable[..., None]
) -> None:
    send(*(f"a{i}" for i in range(40)))
    send(*(f"b{i}" for i in range(40)), queue="b")
    mine = receiver(queues=("a", "b"), prefetch=10, claim_limits={"b": 2})
    claims = []
    for _ in range(4):
        claims.append(Counter(id_[0] for id_ in mine.ids()))
        mine.channel.ack_many(list(mine.channel.qos.claims))
    assert claims in ([{"a": 10}, {"b": 2, "a": 8}] * 2, [{"b": 2, "a": 8}, {"a": 10}] * 2)


def test_the_queue_that_is_second_in_the_list_is_waited_for_as_well(
    receiver: Callable[..., Receiver], send: Callable[..., None]
) -> None:
    mine = receiver(queues=("a", "b"))
    mine.drain(timeout=0.3)
    mine.channel.tick = lambda: None  # which would find it in the end
    for queue in "abba":
        send(queue, queue=queue)
        assert mine.ids() == [queue]
        mine.channel.ack_many(list(mine.channel.qos.claims))


def test_messages_of_any_priority_come_with_the_next_claim(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("9", priority=9)
    send("4", priority=4)
    assert redis_client.keys("a*") != ["a"]
    mine = receiver()
    assert mine.ids(count=2, timeout=3) == ["4", "9"]
    mine.connection.release()
    assert {redis_client.llen("a\x06\x163"), redis_client.llen("a\x06\x169")} == {1}


def test_keys_can_have_a_prefix(redis_url: str, redis_client: Any) -> None:
    mine = Receiver(redis_url, global_keyprefix="p:")
    with Connection(redis_url, transport=STOCK, transport_options={"global_keyprefix": "p:"}) as connection:
        connection.Producer(serializer="json").publish({}, routing_key="a", headers={"id": "1", "task": "t"})
    assert mine.ids() == ["1"]
    assert {key for key in redis_client.scan_iter() if "binding" not in key} == {"p:unacked", "p:unacked_index"}
    mine.connection.release()
    assert {key for key in redis_client.scan_iter() if "binding" not in key} == {"p:a"}


def test_a_restarted_server_is_taught_the_scripts_again(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1", "2")
    mine = receiver(prefetch=1)
    mine.ids()
    redis_client.script_flush()
    mine.channel.ack_many(list(mine.channel.qos.claims))
    assert mine.ids() == ["2"]


def test_a_server_without_memory_is_drained(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis: RedisServer, redis_client: Any
) -> None:
    send("1", "2")
    mine = receiver(prefetch=1)
    redis_client.config_set("maxmemory", 1)
    try:
        with pytest.raises(OutOfMemoryError):
            send("3")
        assert mine.ids() == ["1"]
        mine.channel.touch()
        mine.channel.ack_many(list(mine.channel.qos.claims))
        assert mine.ids() == ["2"]
        mine.connection.release()
        assert state(redis_client) == (1, 0, 0)
    finally:
        redis_client.config_set("maxmemory", 0)


def test_a_connection_that_falls_silent_is_given_up(
    receiver: Callable[..., Receiver], redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(poller, "SILENCE", 1)
    mine = receiver()
    mine.drain(timeout=0.3)
    mine.channel.claim = lambda: 0  # of its own connection, which would notice as well: after socket_timeout
    kill(redis.pid, signal.SIGSTOP)
    try:
        with pytest.raises(RedisConnectionError):
            mine.drain(timeout=10)
    finally:
        kill(redis.pid, signal.SIGCONT)


def test_what_is_larger_than_a_message_may_be_never_leaves_redis(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    large = "x\xff\x00" * 50_000
    mine = receiver(message_bytes=100_000)
    mine.drain(timeout=0.3)  # it waits
    redis_client.lpush("a", large)
    send("1")
    assert mine.ids(count=2) == ["1"]
    ((stand_in, code, tag),) = mine.garbage
    assert (code, json.loads(stand_in)["too_large"]) == (DeadLetterCode.TOO_LARGE, len(large.encode()))
    assert redis_client.hget("unacked_too_large", tag) == large
    mine.channel.ack_many(list(mine.channel.qos.claims))
    assert state(redis_client) == (0, 0, 0)


def test_what_stock_kombu_took_is_set_aside_as_well(receiver: Callable[..., Receiver], redis_client: Any) -> None:
    redis_client.hset(UNACKED, "t", '["' + "x" * 1_000 + '", "", "a"]')
    redis_client.zadd(INDEX, {"t": 1})
    mine = receiver(message_bytes=500)
    mine.drain(timeout=5)
    ((_, code, tag),) = mine.garbage
    assert code == DeadLetterCode.TOO_LARGE
    assert redis_client.hget("unacked_too_large", tag) == '"' + "x" * 1_000 + '"'
    assert state(redis_client) == (0, 0, 0)


def test_a_message_of_megabytes_is_waited_for_without_being_read(
    receiver: Callable[..., Receiver], redis_client: Any
) -> None:
    mine = receiver(message_bytes=1_000)
    for _ in range(3):
        redis_client.lpush("a", "x" * (poller.SKIPPED + 1_000))
        mine.drain(timeout=5)
        mine.garbage.clear()
    assert redis_client.hlen("unacked_too_large") == 3
    assert state(redis_client) == (0, 0, 0)


def test_an_event_loop_adds_each_socket_once_and_a_new_one_in_place_of_one_that_is_gone(
    receiver: Callable[..., Receiver], send: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, hub, added = receiver(), Hub(), list[int]()
    add = hub.add_reader

    def noted(fd: int, *args: Any) -> None:
        added.append(fd)
        add(fd, *args)

    monkeypatch.setattr(hub, "add_reader", noted)
    opened.connection.transport.register_with_event_loop(opened.connection.connection, hub)

    def received(*ids: str) -> None:
        send(*ids)
        until = time.monotonic() + 5
        while len(opened.messages) < len(ids) and time.monotonic() < until:
            hub.run_once()
        came, opened.messages[:] = [message.headers["id"] for message in opened.messages], []
        assert came == list(ids)
        opened.channel.ack_many([*opened.channel.qos.claims])

    received("1")
    assert len(added) == len(set(added))
    for id_ in "234":
        received(id_)
    assert len(added) == len(set(added))
    before = len(added)
    for peek in opened.channel._peeks.values():
        peek.client.connection.disconnect()
    received("5")
    assert len(added) == before + 1
    hub.close()


def test_what_a_consumer_does_not_get_that_cancels_itself_goes_back(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1", "2", "3")
    channel, came = receiver().channel, list[str]()
    (tag,) = channel._consumers

    def cancel(message: Any) -> None:
        came.append(message.headers["id"])
        channel.basic_cancel(tag)

    channel._receivers["a"] = cancel
    assert channel.claim() == 3
    assert came == ["1"]
    assert state(redis_client) == (2, 1, 1)
    assert sorted(receiver().ids(2)) == ["2", "3"]
