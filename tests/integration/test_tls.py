"""Redis behind TLS, addressed as the manuals of Celery and of redis-py spell it: it means the same to everyone here."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

import pytest
from celery import Celery
from pydantic import SecretStr
from redis import RedisError

from enrollment.client import BrokerAway, Client
from enrollment.consumer import GroupConsumer, Reader
from enrollment.names import QUEUE
from gateway.event_stream import connect as connect_gateway
from tests.integration.cli.conftest import start
from tests.root import ROOT
from tests.tls import Secured
from worker.publishing import connect
from worker.settings import Settings

NONE = SimpleNamespace(sentinels=())
SPELLINGS: list[Callable[[Secured], str]] = [
    lambda it: it.url(ssl_cert_reqs="CERT_REQUIRED", ssl_ca_certs=it.ca),
    lambda it: it.url(ssl_cert_reqs="required", ssl_ca_certs=it.ca, ssl_check_hostname="True"),
    lambda it: it.url(ssl_cert_reqs="CERT_OPTIONAL", ssl_ca_certs=it.ca),
    lambda it: it.url(ssl_ca_certs=it.ca),
    lambda it: it.url("127.0.0.1", ssl_cert_reqs="optional", ssl_ca_certs=it.ca, ssl_check_hostname="False"),
    lambda it: it.url("127.0.0.1", ssl_cert_reqs="CERT_NONE"),
    lambda it: it.url("127.0.0.1", ssl_cert_reqs="none"),
]


@pytest.mark.parametrize("spell", SPELLINGS)
def test_both_spellings_of_tls_reach_redis_from_everywhere(tls: Secured, spell: Callable[[Secured], str]) -> None:
    reach_from_everywhere(spell(tls))


def test_a_certificate_of_the_client_is_shown_from_everywhere(mutual_tls: Secured) -> None:
    files = {"ssl_certfile": str(mutual_tls.client), "ssl_keyfile": str(mutual_tls.client)}
    url = mutual_tls.url(ssl_cert_reqs="CERT_REQUIRED", ssl_ca_certs=mutual_tls.ca)
    reach_from_everywhere(f"{url}&{urlencode(files)}")
    with pytest.raises((RedisError, OSError)), connect(mutual_tls.url(ssl_ca_certs=mutual_tls.ca)) as redis:
        redis.ping()


@pytest.mark.parametrize(
    "spell",
    [
        lambda it: it.url(),
        lambda it: it.url(ssl_cert_reqs="CERT_REQUIRED"),
        lambda it: it.url(ssl_ca_certs=it.other_ca),
        lambda it: it.url("127.0.0.1", ssl_ca_certs=it.ca),  # of another name
    ],
)
def test_a_certificate_of_somebody_else_is_refused_in_one_sentence(
    tls: Secured, spell: Callable[[Secured], str]
) -> None:
    url, sentence = spell(tls), r"^[^\n]*certificate verify failed[^\n]*$"
    with Client(url, patience=0.1) as client, pytest.raises(BrokerAway, match=sentence):
        client.enroll(1, [10])
    with connect(url) as redis, pytest.raises(RedisError, match=sentence):
        redis.ping()


def test_a_worker_with_the_address_of_celery_s_manual_applies_commands_and_tells_of_them(
    tls: Secured, database_url: str, catalog: None, tmp_path: Path
) -> None:
    url = tls.url(ssl_cert_reqs="CERT_REQUIRED", ssl_ca_certs=tls.ca)
    variables = {"ENROLLMENT_DATABASE_URL": database_url, "ENROLLMENT_BROKER_URL": url}
    command = [sys.executable, "-m", "celery", "-A", "worker", "worker"]
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(command, env={**os.environ, **variables}, cwd=ROOT, stdout=log, stderr=log)
    try:
        with Client(url) as client:
            event = client.wait_for(client.enroll(1, [10]), 60)
        assert event.data.enrolled == (10,)
        doctor = start(variables, "doctor", stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        output, _ = doctor.communicate(timeout=60)
        assert doctor.returncode == 0, output
    finally:
        worker.terminate()
        worker.wait(30)


def reach_from_everywhere(url: str) -> None:
    """Send and read, as each part of this project does that gets an address from the settings or from a caller."""
    settings = Settings(broker_url=SecretStr(url))
    with Client(url, patience=1) as client:
        client.enroll(1, [10])
    for address in (url, settings.require_events_url()):
        with connect(address) as redis:
            assert redis.llen(QUEUE) == 1
        with Reader(address, wait=0.01) as reader:
            assert reader.read() == []
        with GroupConsumer(address, group="group", name="one", wait=0.01) as consumer:
            assert consumer.read().entries == []
    asyncio.run(_ask_as_the_gateway(settings.require_events_url()))
    broker_url, use_ssl, options = _celeryconfig(url)
    app = Celery("monitor", broker=broker_url, set_as_current=False, broker_use_ssl=use_ssl)
    app.conf.broker_transport_options = options
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1)
        flower = import_module("flower.utils.broker").Broker(
            connection.as_uri(include_password=True), broker_use_ssl=use_ssl, broker_options=options
        )
        assert asyncio.run(_ask_as_flower(flower)) == 1


async def _ask_as_flower(broker: Any) -> int:
    [queue] = await broker.queues([QUEUE])
    for client in (broker.redis, *getattr(broker.redis.connection_pool, "sentinel_manager", NONE).sentinels):
        await client.aclose()  # Flower itself leaves that to the end of the process
    return int(queue["messages"])


def _celeryconfig(url: str) -> tuple[str, Any, Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENROLLMENT_BROKER_URL", url)
        patch.delitem(sys.modules, "celeryconfig", raising=False)
        celeryconfig = import_module("celeryconfig")
        return celeryconfig.broker_url, celeryconfig.broker_use_ssl, celeryconfig.broker_transport_options


async def _ask_as_the_gateway(url: str) -> None:
    redis = connect_gateway(url)
    try:
        assert await redis.llen(QUEUE) == 1
    finally:
        await redis.aclose()
