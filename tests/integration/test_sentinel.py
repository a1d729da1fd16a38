"""Redis behind sentinels: one address means the same to everyone here, and a server that is replaced is an outage."""

import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import trustme

from enrollment.client import Client
from enrollment.names import QUEUE
from tests.integration.test_tls import reach_from_everywhere
from tests.replicated import MASTER, ReplicatedRedis, SentinelServer
from tests.tls import listening, relay
from worker.local.redis import Redis
from worker.publishing import connect


@pytest.fixture(scope="module")
def replicated(server_folder: Path) -> Iterator[ReplicatedRedis]:
    with ReplicatedRedis(server_folder / "replicated") as it:
        yield it


@pytest.fixture(autouse=True)
def _emptied(replicated: ReplicatedRedis) -> None:
    with replicated.client() as client:
        client.flushall()


def test_both_spellings_of_several_sentinels_reach_redis_from_everywhere(replicated: ReplicatedRedis) -> None:
    first, *others = (f"127.0.0.1:{sentinel.port}" for sentinel in replicated.sentinels)
    reach_from_everywhere(replicated.url)
    with replicated.client() as client:
        client.flushall()
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
        with Client(url) as client:
            client.enroll(1, [10])
        with connect(url) as server:
            assert server.llen(QUEUE) == 1
