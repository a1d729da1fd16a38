"""Together with stock kombu."""

from collections.abc import Callable
from typing import Any

import pytest
from kombu import Connection, Consumer, Exchange, Queue
from kombu import transport as kombu_transports
from kombu.transport import redis as kombu_stock

from tests.integration.transport.conftest import INDEX, STOCK, UNACKED, Receiver, expire_all, state
from worker.transport import Transport, kombu_redis, register


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
    again.ack()  # or kombu gives it back on a connection that it makes for that and never closes


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


def test_plain_redis_urls_use_the_transport_once_it_is_registered(
    monkeypatch: pytest.MonkeyPatch, redis_url: str
) -> None:
    for scheme in ("redis", "rediss"):  # put back afterwards
        monkeypatch.setitem(kombu_transports.TRANSPORT_ALIASES, scheme, STOCK)
        monkeypatch.setitem(kombu_redis.cached_transports, scheme, kombu_stock.Transport)
    register()
    for url in (redis_url, redis_url.replace("redis://", "rediss://") + "?ssl_cert_reqs=required"):
        with Connection(url) as connection:
            assert isinstance(connection.transport, Transport)
            assert connection.as_uri(include_password=True).startswith(url.split("?")[0])


def test_the_private_parts_of_kombu_are_where_they_were() -> None:
    for owner, names in {
        kombu_stock.QoS: ("append", "ack", "reject", "restore_unacked_once", "restore_visible"),
        kombu_stock.Channel: (
            *("_create_client", "_receive_one", "_size", "_basic_cancel", "_on_connection_disconnect", "active_queues"),
            *("_connparams", "_process_credential_provider"),
        ),
        kombu_stock.MultiChannelPoller: ("_client_registered", "_register", "on_poll_start", "maybe_restore_messages"),
        kombu_stock: ("_socket_readable",),
        kombu_transports: ("TRANSPORT_ALIASES", "_transport_cache"),
    }.items():
        for name in names:
            assert hasattr(owner, name), f"{owner} has no {name} any more"
