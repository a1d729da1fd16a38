"""RabbitMQ over TLS: a certificate of this host, signed by whom the address names, or nothing is sent."""

from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from pydantic import SecretStr

from enrollment.addresses import AddressError, broker_url
from enrollment.client import BrokerAway, Client
from enrollment.names import QUEUE
from gateway.producer import CommandProducer
from tests.eventually import eventually
from tests.integration.consume.conftest import Worker
from tests.integration.rabbitmq.conftest import RabbitBroker
from tests.rabbitmq import RabbitMQ
from tests.tls import Secured, secured
from worker import checks
from worker.brokers import watch
from worker.settings import BrokerOptions, Settings


@pytest.fixture
def tls(node: RabbitMQ, tmp_path: Path) -> Iterator[Secured]:
    with secured(node, tmp_path, ask=True) as it:
        yield it


def address(tls: Secured, host: str = "localhost", **options: str | Path) -> str:
    files = {"ssl_certfile": tls.client, "ssl_keyfile": tls.client}
    return f"amqps://enrollment:{tls.password}@{host}:{tls.port}//?{urlencode({**files, **options})}"


def test_a_command_goes_through_rabbitmq_over_tls(
    tls: Secured, rabbit: RabbitBroker, start: Callable[..., Worker]
) -> None:
    rabbit.url = address(tls, ssl_ca_certs=tls.ca)
    start()
    away = f"amqps://enrollment:{tls.password}@localhost:1//"  # a node that is down
    with Client(f"{away};{rabbit.url}", patience=10) as client:
        client.enroll(1, [10])
    eventually(lambda: rabbit.has_applied(1))


@pytest.mark.parametrize(
    "spell",
    [
        address,
        lambda it: address(it, ssl_ca_certs=it.other_ca),
        lambda it: address(it, "127.0.0.1", ssl_ca_certs=it.ca),  # of another name
    ],
)
def test_a_certificate_of_somebody_else_is_refused_in_one_sentence(
    tls: Secured, spell: Callable[[Secured], str]
) -> None:
    with (
        Client(spell(tls), patience=0.1) as client,
        pytest.raises(BrokerAway, match=r"^[^\n]*certificate verify failed[^\n]*$"),
    ):
        client.enroll(1, [10])


def test_what_an_address_leaves_unchecked_is_not_checked(tls: Secured, rabbit: RabbitBroker) -> None:
    for unchecked in ({"ssl_cert_reqs": "CERT_NONE"}, {"ssl_ca_certs": tls.ca, "ssl_check_hostname": "false"}):
        with Client(address(tls, "127.0.0.1", **unchecked), patience=0.1) as client:
            client.enroll(1, [10])


def test_doctor_and_the_gateway_reach_rabbitmq_over_tls(tls: Secured, rabbit: RabbitBroker) -> None:
    url = address(tls, ssl_ca_certs=tls.ca)
    with Client(url, patience=10) as client:
        client.enroll(1, [10])
    assert watch(broker_url(url, "it"), BrokerOptions()).depths().queues[QUEUE].messages == 1
    CommandProducer(broker_url(url, "it"))._check()
    settings = Settings(broker_url=SecretStr(url))
    assert {it.status for it in checks.findings(settings) if it.name == "broker"} == {"ok"}


@pytest.mark.parametrize("scheme", ["AMQPS", "amqp://enrollment@localhost:1//;amqps"])
def test_a_client_checks_addresses_as_a_worker_does(tls: Secured, scheme: str) -> None:
    url = address(tls, "127.0.0.1", ssl_ca_certs=tls.ca).replace("amqps", scheme, 1)
    with pytest.raises((AddressError, BrokerAway)), Client(url, patience=0.1) as client:
        client.enroll(1, [10])
