"""Redis behind sentinels: one address means the same to everyone here, and a server that is replaced is an outage."""

import os
import signal
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trustme
from redis import Redis as Connection
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import ReadOnlyError
from sqlalchemy import Engine

from enrollment.addresses import redis_url
from enrollment.client import BrokerAway, Client
from enrollment.consumer import GroupConsumer
from enrollment.names import ENROLL, QUEUE
from enrollment.redis_client import client
from enrollment.replication import NotReplicated, write
from tests.integration.conftest import STREAM, message
from tests.integration.test_tls import reach_from_everywhere
from tests.replicated import MASTER, ReplicatedRedis, SentinelServer, until
from tests.tls import listening, relay
from worker import health
from worker.exporter import System
from worker.local.redis import Redis
from worker.publishing import Publisher, connect
from worker.service import Service
from worker.settings import Settings
from worker.transport.claims import Claims, Source

Rows = Callable[..., list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def replicated(server_folder: Path) -> Iterator[ReplicatedRedis]:
    with ReplicatedRedis(server_folder / "replicated") as it:
        yield it


@pytest.fixture(autouse=True)
def _emptied(replicated: ReplicatedRedis) -> None:
    with replicated.client() as redis:
        redis.flushall()


def test_the_exporter_counts_replicas(
    replicated: ReplicatedRedis, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENROLLMENT_DATABASE_URL", database_url)
    monkeypatch.setenv("ENROLLMENT_BROKER_URL", replicated.url)
    system = System(Settings.load())
    found = {
        (it.name, it.labels["server"]): it.value
        for metric in system.collect()
        for it in metric.samples
        if it.labels and "server" in it.labels
    }
    system.close()
    for server in ("broker", "stream"):
        assert (found["enrollment_replicas", server], found["enrollment_replicas_wanted", server]) == (2, 1)


def test_both_spellings_of_several_sentinels_reach_redis_from_everywhere(replicated: ReplicatedRedis) -> None:
    first, *others = (f"127.0.0.1:{sentinel.port}" for sentinel in replicated.sentinels)
    reach_from_everywhere(replicated.url)
    with replicated.client() as redis:
        redis.flushall()
    password = replicated.servers[0].password
    reach_from_everywhere(
        f"sentinel://:{password}@{first};{';'.join(f'sentinel://{it}' for it in others)}/0?master_name={MASTER}"
    )


def test_tls_reaches_sentinels_with_a_password_of_their_own_and_the_server_that_they_name(
    server_folder: Path, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    with ExitStack() as stack:
        redis = stack.enter_context(Redis(server_folder / "secured", durable=False))
        unwrapped = stack.enter_context(listening(relay(redis.port), context))
        port = stack.enter_context(listening(relay(redis.port, tls=unwrapped)))  # sentinels themselves come without TLS
        settings = {
            f"sentinel monitor {MASTER}": f"127.0.0.1 {port} 1",
            f"sentinel auth-pass {MASTER}": redis.password,
            "requirepass": "of-sentinels",
        }
        sentinel = stack.enter_context(SentinelServer(server_folder / "secured-sentinel", settings=settings))
        before = stack.enter_context(listening(relay(sentinel.port), context))
        query = f"master_name={MASTER}&sentinel_password=of-sentinels&ssl_ca_certs={tmp_path / 'ca.pem'}&replicas=0"
        url = f"sentinels://:{redis.password}@localhost:{before}/0?{query}"
        with Client(url) as producer:
            producer.enroll(1, [10])
        with connect(url) as server:
            assert server.llen(QUEUE) == 1


@contextmanager
def frozen(*servers: Redis) -> Iterator[None]:
    for server in servers:
        os.kill(server.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for server in servers:
            os.kill(server.pid, signal.SIGCONT)


def test_an_event_that_no_replica_has_stays_in_the_outbox_and_is_on_the_stream_once_all_the_same(
    replicated: ReplicatedRedis, engine: Engine, catalog: None, rows: Rows
) -> None:
    with connect(redis_url(replicated.url)) as redis:
        publisher = Publisher(redis, stream=STREAM, maxlen=1000, replicas=1)
        service = Service(engine, publisher)
        service.handle([message(ENROLL, 1, [10])])
        assert rows("*", "outbox") == []
        with frozen(*replicated.replicas):
            service.handle([message(ENROLL, 1, [11])])
            assert len(rows("*", "outbox")) == 1
            assert redis.xlen(STREAM) == 2
        service._relay._not_before = 0
        service.relay(older_than=0)
        assert rows("*", "outbox") == []
        assert redis.xlen(STREAM) == 2


def test_a_command_that_no_replica_has_does_not_count_as_sent(replicated: ReplicatedRedis) -> None:
    with Client(replicated.url, patience=0) as producer:
        producer.enroll(1, [10])
        with frozen(*replicated.replicas), pytest.raises(BrokerAway, match="0 of 1 replicas"):
            producer.enroll(1, [10])
    with Client(replicated.url + "&replicas=0") as careless, frozen(*replicated.replicas):
        careless.enroll(1, [10])


def test_a_message_that_is_claimed_while_no_replica_can_have_it_is_given_back(replicated: ReplicatedRedis) -> None:
    with replicated.client(decode_responses=False) as redis:
        claims = Claims(
            lambda: redis.connection_pool, index="unacked_index", unacked="unacked", visibility_timeout=5, replicas=1
        )
        redis.lpush("queue", b"message")
        wanted = {"limit": 1, "max_bytes": 1000, "max_message": 1000}
        source = Source("queue", ("queue",), 1)
        with frozen(*replicated.replicas), pytest.raises(NotReplicated):
            claims.take([source], **wanted)
        assert redis.llen("queue") == 1
        assert [claim.raw for claim in claims.take([source], **wanted)] == [b"message"]


@contextmanager
def without(replicated: ReplicatedRedis, replica: Redis) -> Iterator[None]:
    with Connection.from_url(replica.url) as server:
        server.replicaof("NO", "ONE")
    try:
        with replicated.client() as primary:
            until(lambda: primary.info("replication")["connected_slaves"] == 1)
        yield
    finally:
        replicated.follow(replica)


def test_a_server_that_loses_a_replica_confirms_nothing_until_no_sentinel_knows_of_a_failover(
    replicated: ReplicatedRedis,
) -> None:
    """The replica that is left would confirm it, and may be about to follow another server that never had it."""
    with client(redis_url(replicated.url)) as redis:
        connection: Any = redis.connection_pool.get_connection()
        assert write(connection, 1, "INCR", "n") == 1
        with without(replicated, replicated.replicas[0]):
            with pytest.raises(NotReplicated, match="has left"):
                write(connection, 1, "INCR", "n")
            connection.disconnect()
            assert write(connection, 1, "INCR", "n") == 3
            redis.connection_pool.release(connection)


def test_a_replica_that_comes_and_leaves_between_two_writes_is_one_that_left(replicated: ReplicatedRedis) -> None:
    with client(redis_url(replicated.url)) as redis:
        connection: Any = redis.connection_pool.get_connection()
        replica = replicated.replicas[0]
        with without(replicated, replica):
            assert write(connection, 1, "INCR", "n") == 1
        with without(replicated, replica), pytest.raises(NotReplicated, match="has left"):
            write(connection, 1, "INCR", "n")
        connection.disconnect()
        redis.connection_pool.release(connection)


def test_a_replica_that_is_silent_or_comes_keeps_nothing_from_being_confirmed(replicated: ReplicatedRedis) -> None:
    with client(redis_url(replicated.url)) as redis:
        connection: Any = redis.connection_pool.get_connection()
        replica = replicated.replicas[0]
        with without(replicated, replica):
            assert write(connection, 1, "INCR", "n") == 1
        assert write(connection, 1, "INCR", "n") == 2
        with frozen(replica):
            assert [write(connection, 1, "INCR", "n") for _ in range(3)] == [3, 4, 5]
        until(lambda: write(connection, 2, "INCR", "n"))
        redis.connection_pool.release(connection)


def test_a_sentinel_that_is_silent_may_have_promoted_a_replica_that_is_away(replicated: ReplicatedRedis) -> None:
    """The others know of it only when it tells them; a replica that is dead was not promoted."""
    replica = replicated.replicas[0]
    with client(redis_url(replicated.url)) as redis:
        connection: Any = redis.connection_pool.get_connection()
        with without(replicated, replica), frozen(replicated.sentinels[0]):
            with pytest.raises(NotReplicated, match="a sentinel is silent"):
                write(connection, 1, "INCR", "n")
            connection.disconnect()
            with frozen(replica):
                until(lambda: write(connection, 1, "INCR", "n"))
        connection.disconnect()
        redis.connection_pool.release(connection)


def test_a_silent_sentinel_is_waited_for_once_and_not_by_each_new_connection(replicated: ReplicatedRedis) -> None:
    ports = [sentinel.port for sentinel in replicated.sentinels]
    with frozen(replicated.sentinels[0]):
        for _ in range(2):
            with client(redis_url(replicated.url)) as redis:
                redis.ping()
                asked = redis.connection_pool.sentinel_manager.sentinels
                found = [each.connection_pool.connection_kwargs["port"] for each in asked]
            with client(redis_url(replicated.url)) as redis:
                asked = redis.connection_pool.sentinel_manager.sentinels
                assert [each.connection_pool.connection_kwargs["port"] for each in asked] == found
                assert found[0] != ports[0]


def test_a_sentinel_that_is_cut_off_with_an_old_primary_is_not_believed(
    replicated: ReplicatedRedis, server_folder: Path
) -> None:
    """Workers and producers reach both sides; the other sentinels have elected a new primary meanwhile."""
    password = replicated.servers[0].password
    old = Redis(server_folder / "old", durable=False)
    old.folder.mkdir(parents=True)
    (old.folder / "password").write_text(password)
    with ExitStack() as stack:
        stack.enter_context(old)
        settings = {
            f"sentinel monitor {MASTER}": f"127.0.0.1 {old.port} 1",
            f"sentinel auth-pass {MASTER}": password,
        }
        cut_off = stack.enter_context(SentinelServer(server_folder / "cut-off", settings=settings))
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in (cut_off, *replicated.sentinels))
        url = f"sentinel://:{password}@{hosts}/0?master_name={MASTER}"
        with Client(url, patience=10) as producer:
            producer.enroll(1, [10])
        with connect(redis_url(url)) as redis:
            assert Publisher(redis, stream=STREAM, maxlen=1000, replicas=1).publish(uuid4(), [], ["{}"]) == 1
        with replicated.client() as primary:
            assert primary.llen(QUEUE) == primary.xlen(STREAM) == 1


@pytest.mark.parametrize("setting", ["min-replicas-to-write 5", "replica"])
def test_a_server_that_refuses_writes_is_an_outage_for_a_group(replicated: ReplicatedRedis, setting: str) -> None:
    number = replicated.primary
    url = replicated.servers[number].url if " " in setting else replicated.replicas[0].url
    with replicated.client() as redis, GroupConsumer(url, group="library", name="one", wait=0.05) as consumer:
        if " " in setting:
            redis.config_set(*setting.split())
        try:
            with pytest.raises(Disconnected):
                consumer.read()
        finally:
            redis.config_set("min-replicas-to-write", "1")


def test_a_replica_refuses_what_is_to_be_confirmed(replicated: ReplicatedRedis) -> None:
    with client(replicated.replicas[0].url) as redis:
        connection: Any = redis.connection_pool.get_connection()
        with pytest.raises(ReadOnlyError):
            write(connection, 1, "INCR", "n")
        redis.connection_pool.release(connection)


def test_doctor_says_what_a_failover_may_forget() -> None:
    url = "sentinel://a:26379?master_name=school&replicas="
    good = {"connected_slaves": 2, "min_slaves_good_slaves": 2}
    alone = {"connected_slaves": 2}
    found = [
        health.replication("broker", f"{url}{n}", info) for n, info in ((1, good), (1, alone), (0, good), (3, good))
    ]
    assert [finding.status for finding in found if finding] == ["ok", "warn", "warn", "fail"]
    assert health.replication("broker", "redis://a", alone) is None
