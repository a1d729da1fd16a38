import json
import signal
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from os import kill
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Queue
from kombu import transport as kombu_transports
from kombu.transport import redis as kombu_redis
from redis import ConnectionError as RedisConnectionError
from redis import Redis
from redis.exceptions import OutOfMemoryError

from enrollment.errors import DeadLetterCode
from worker.local.redis import Redis as RedisServer
from worker.transport import Channel, Transport, register, stock, waiting

UNACKED, INDEX, DELIVERIES = "unacked", "unacked_index", "unacked_deliveries"
STOCK = "kombu.transport.redis:Transport"


class Receiver:
    """A consumer of its own connection, without an event loop."""

    def __init__(self, url: str, queues: Sequence[str] = ("a",), prefetch: int = 0, **options: Any) -> None:
        options = {"visibility_timeout": 60, "socket_timeout": 5, **options}
        transport = options.pop("transport", Transport)
        connection: Any = Connection(url, transport=transport, transport_options=options)
        self.connection = connection
        self.channel = connection.channel()
        self.messages: list[Any] = []
        self.garbage: list[tuple[bytes, str, str]] = []
        self.channel.on_garbage = self.on_garbage
        self.channel.basic_qos(0, prefetch)
        bound = [Queue(name, Exchange(name), name) for name in queues]
        Consumer(self.channel, bound, on_message=self.messages.append, accept=["json"]).consume()

    def on_garbage(self, raw: bytes, code: DeadLetterCode, _message: str, tag: str) -> None:
        self.garbage.append((raw, code, tag))

    def drain(self, count: int = 1, timeout: float = 5) -> list[Any]:
        """Wait until `count` messages have come, or for `timeout` seconds; return all that came."""
        until = time.monotonic() + timeout
        while len(self.messages) + len(self.garbage) < count and time.monotonic() < until:
            with suppress(TimeoutError):
                self.connection.drain_events(timeout=0.2)
        came, self.messages[:] = list(self.messages), []
        return came

    def ids(self, count: int = 1, timeout: float = 5) -> list[str]:
        return [message.headers["id"] for message in self.drain(count, timeout)]

    def vanish(self) -> None:
        """Go as a killed process does: nothing is given back."""
        self.channel.qos.claims.clear() if isinstance(self.channel, Channel) else None
        self.channel.qos._delivered.clear()
        self.connection.release()


@pytest.fixture
def receiver(redis_url: str) -> Iterator[Callable[..., Receiver]]:
    """Give a function that opens receivers; they are closed in the end."""
    opened: list[Receiver] = []

    def open_receiver(*args: Any, **kwargs: Any) -> Receiver:
        opened.append(Receiver(redis_url, *args, **kwargs))
        return opened[-1]

    yield open_receiver
    for each in opened:
        each.connection.release()


@pytest.fixture
def send(redis_url: str) -> Iterator[Callable[..., None]]:
    """Give a stock producer: `send("1", "2", queue="a", priority=0)`."""
    with Connection(redis_url, transport=STOCK) as connection:
        producer = connection.Producer(serializer="json")

        def publish(*ids: str, queue: str = "a", body: object = ((), {}, {}), **options: Any) -> None:
            exchange = Exchange(queue)
            for id_ in ids:
                producer.publish(
                    body,
                    exchange=exchange,
                    routing_key=queue,
                    declare=[Queue(queue, exchange, queue)],
                    headers={"id": id_, "task": "t"},
                    **options,
                )

        yield publish


def state(client: Any) -> tuple[int, int, int]:
    """Return how many messages are waiting in `a`, claimed, and indexed as claimed."""
    return client.llen("a"), client.hlen(UNACKED), client.zcard(INDEX)


def expire_all(client: Any) -> None:
    for tag in client.zrange(INDEX, 0, -1):
        client.zadd(INDEX, {tag: 1})


# --- claiming


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
    for queue in "abba":
        send(queue, queue=queue)
        begin = time.monotonic()
        assert mine.ids() == [queue]
        assert time.monotonic() - begin < 0.5
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


# --- giving back, and claiming again


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
        victim.channel.begin(list(victim.channel.qos.claims))
        victim.vanish()
        expire_all(redis_client)
    last = receiver()
    assert last.ids() == []
    assert [(raw, code) for raw, code, _ in last.garbage] == [(sent.encode(), DeadLetterCode.TOO_MANY_DELIVERIES)]
    assert (*state(redis_client), redis_client.hlen(DELIVERIES)) == (0, 0, 0, 0)


def test_a_message_that_nobody_began_to_work_on_is_never_garbage(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    """As when the answers to its claims are lost on the way, again and again."""
    send("1")
    for _ in range(8):
        lost = receiver()
        assert lost.ids() == ["1"]
        lost.vanish()
        expire_all(redis_client)
    last = receiver()
    assert last.ids() == ["1"]
    last.channel.ack_many(list(last.channel.qos.claims))
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
    assert receiver(queues=["b"]).channel.ledger.release(claims) == 0  # as if the first answer had been lost
    assert state(redis_client) == (2, 0, 0)


# --- together with stock kombu


def test_claims_of_a_stock_worker_are_claimed_again(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1")
    silent = receiver(transport=STOCK)
    (message,) = silent.drain()
    silent.vanish()
    expire_all(redis_client)
    (again,) = receiver().drain()
    assert (again.delivery_tag, again.body) == (message.delivery_tag, message.body)
    again.ack()
    assert state(redis_client) == (0, 0, 0)


def test_claims_of_other_queues_are_left_alone(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1", queue="theirs")
    silent = receiver(queues=["theirs"], transport=STOCK)
    silent.drain()
    silent.vanish()
    expire_all(redis_client)
    assert receiver().ids(timeout=1) == []
    assert (redis_client.hlen(UNACKED), redis_client.zscore(INDEX, redis_client.zrange(INDEX, 0, 0)[0])) == (1, 1)


def test_stock_workers_restore_what_was_claimed_here(
    receiver: Callable[..., Receiver], send: Callable[..., None], redis_client: Any
) -> None:
    send("1")
    silent = receiver()
    (message,) = silent.drain()
    silent.vanish()
    expire_all(redis_client)
    (again,) = receiver(transport=STOCK, unacked_restore_throttle=1).drain()
    assert (again.headers["id"], again.body) == ("1", message.body)


def test_a_record_whose_message_is_gone_is_cleared_away(receiver: Callable[..., Receiver], redis_client: Any) -> None:
    redis_client.zadd(INDEX, {"left over": 1})
    receiver().drain(timeout=1)
    assert redis_client.exists(INDEX) == 0


def test_queues_without_acknowledgements_are_received_as_in_kombu(redis_url: str, redis_client: Any) -> None:
    with Connection(redis_url, transport=Transport) as connection:
        came: list[Any] = []
        queue = Queue("reply", Exchange("reply"), "reply", no_ack=True)
        channel: Any = connection.channel()
        Consumer(channel, [queue], on_message=came.append, no_ack=True).consume()
        connection.Producer(serializer="json").publish({"pong": 1}, exchange="reply", routing_key="reply")
        connection.drain_events(timeout=2)
        assert came[0].payload == {"pong": 1}
        assert redis_client.hlen(UNACKED) == 0


# --- garbage

HEADERS = {"id": "1", "task": "t"}
BODY = b64encode(b"[[], {}, {}]").decode()
ENVELOPE = {"headers": HEADERS, "body": BODY, "properties": {"body_encoding": "base64"}}

GARBAGE = {
    "text": b"hello",
    "nothing": b"",
    "not UTF-8": b"\xff\xfe\x00",
    "half a message": json.dumps(ENVELOPE).encode()[:-5],
    "a list": b"[1, 2]",
    "a number": b"1",
    "null": b"null",
    "no headers": json.dumps({"body": BODY, "properties": {}}).encode(),
    "headers that are a list": json.dumps(ENVELOPE | {"headers": []}).encode(),
    "no id": json.dumps(ENVELOPE | {"headers": {"task": "t"}}).encode(),
    "an id that is a number": json.dumps(ENVELOPE | {"headers": {"id": 1, "task": "t"}}).encode(),
    "no task": json.dumps(ENVELOPE | {"headers": {"id": "1"}}).encode(),
    "a task that is a list": json.dumps(ENVELOPE | {"headers": {"id": "1", "task": ["t"]}}).encode(),
    "properties that are text": json.dumps(ENVELOPE | {"properties": "x"}).encode(),
    "a body that is not base64": json.dumps(ENVELOPE | {"body": "a"}).encode(),
    "a body that is a list": json.dumps(ENVELOPE | {"body": [1]}).encode(),
    "no body": json.dumps({"headers": HEADERS, "properties": {}}).encode(),
    "an unknown body encoding": json.dumps(ENVELOPE | {"properties": {"body_encoding": "rot13"}}).encode(),
    "a body encoding that is a list": json.dumps(ENVELOPE | {"properties": {"body_encoding": []}}).encode(),
    "a lone surrogate in a plain body": b'{"headers":{"id":"1","task":"t"},"body":"\\ud800"}',
    "nested 100,000 deep": b"[" * 100_000,
    "a number of 5,000 digits": b"[" + b"9" * 5_000 + b"]",
    "what looks like a record": b'{},"","a"],"","a"]',
}


@pytest.mark.parametrize("entry", GARBAGE.values(), ids=GARBAGE.keys())
def test_garbage_is_handed_over_as_it_is_and_stops_nothing(
    entry: bytes, receiver: Callable[..., Receiver], send: Callable[..., None], redis_url: str, redis_client: Any
) -> None:
    with Redis.from_url(redis_url) as raw:
        raw.lpush("a", entry)
    send("good")
    mine = receiver()
    assert [message.headers["id"] for message in mine.drain(count=2)] == ["good"]
    ((kept, code, _),) = mine.garbage
    assert kept == entry
    assert code in {DeadLetterCode.NOT_A_MESSAGE, DeadLetterCode.UNDECODABLE_BODY}
    assert state(redis_client) == (0, 1, 1)  # the good one


def test_garbage_that_could_not_be_kept_comes_again_under_its_tag(
    receiver: Callable[..., Receiver], redis_client: Any
) -> None:
    redis_client.lpush("a", "hello")
    mine = receiver()
    mine.channel.on_garbage = None
    mine.drain(timeout=0.5)
    tags = redis_client.zrange(INDEX, 0, -1)
    assert state(redis_client) == (0, 1, 1)
    expire_all(redis_client)
    mine.channel.on_garbage = mine.on_garbage
    mine.drain(timeout=3)
    assert [(raw, tag) for raw, _, tag in mine.garbage] == [(b"hello", tags[0])]
    assert state(redis_client) == (0, 0, 0)


@pytest.mark.parametrize(
    "entry",
    [
        {"headers": HEADERS, "body": "[[], {}, {}]"},
        {"headers": HEADERS, "body": "[[], {}, {}]", "properties": {"body_encoding": "utf-8", "delivery_info": 7}},
        ENVELOPE,
        ENVELOPE | {"properties": {"body_encoding": "base64", "priority": "high", "delivery_tag": "not unique"}},
    ],
)
def test_a_message_made_by_hand_is_a_message(
    entry: dict[str, Any], receiver: Callable[..., Receiver], redis_client: Any
) -> None:
    for _ in range(2):
        redis_client.lpush("a", json.dumps(entry))
    messages = receiver().drain(count=2)
    assert [message.body for message in messages] == [b"[[], {}, {}]"] * 2
    assert len({message.delivery_tag for message in messages}) == 2
    for message in messages:
        message.ack()
    assert state(redis_client) == (0, 0, 0)


# --- the network, and kombu


def test_a_connection_that_falls_silent_is_given_up(
    receiver: Callable[..., Receiver], redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "SILENCE", 1)
    mine = receiver()
    mine.drain(timeout=0.3)
    mine.channel.claim = lambda: 0  # of its own connection, which would notice as well: after socket_timeout
    kill(redis.pid, signal.SIGSTOP)
    try:
        begin = time.monotonic()
        with pytest.raises(RedisConnectionError):
            mine.drain(timeout=10)
        assert time.monotonic() - begin < 4
    finally:
        kill(redis.pid, signal.SIGCONT)


def test_plain_redis_urls_use_the_transport_once_it_is_registered(
    monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    for scheme in ("redis", "rediss"):  # put back afterwards
        monkeypatch.setitem(kombu_transports.TRANSPORT_ALIASES, scheme, STOCK)
        monkeypatch.setitem(stock.cached_transports, scheme, kombu_redis.Transport)
    register()
    for url in (redis_url, redis_url.replace("redis://", "rediss://") + "?ssl_cert_reqs=required"):
        with Connection(url) as connection:
            assert isinstance(connection.transport, Transport)
            assert connection.as_uri(include_password=True).startswith(url.split("?")[0])


def test_the_private_parts_of_kombu_are_where_they_were() -> None:
    for owner, names in {
        kombu_redis.QoS: ("append", "ack", "reject", "restore_unacked_once", "restore_visible"),
        kombu_redis.Channel: ("_create_client", "_basic_cancel", "_on_connection_disconnect", "active_queues"),
        kombu_redis.MultiChannelPoller: ("_client_registered", "_register", "on_poll_start", "maybe_restore_messages"),
        kombu_redis: ("_socket_readable", "PRIORITY_STEPS"),
        kombu_transports: ("TRANSPORT_ALIASES", "_transport_cache"),
    }.items():
        for name in names:
            assert hasattr(owner, name), f"{owner} has no {name} any more"
