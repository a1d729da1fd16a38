"""The description is true: schemathesis sends what it allows and what it does not, and compares the answers."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from pydantic import SecretStr
from schemathesis.config import SchemathesisConfig

from gateway.app import create_app
from tests.gateway import Backend, served
from worker.credentials import ApiKey, Scope
from worker.settings import Settings

EXAMPLES = 10  # of each operation
# Sound requests may name what does not exist: then they are rejected, by the codes that the worker gives.
REFUSALS = ["2xx", "304", "404", "409", "422"]
KEY, SECRET = ApiKey.create("schemathesis", list(Scope))

# Nothing is connected: what is described does not depend on the servers.
nowhere = Settings(
    database_url=SecretStr("postgresql://x"), broker_url=SecretStr("redis://x"), gateway_keys=(KEY,), gateway_rate=0
)
document = create_app(nowhere).openapi()
config = SchemathesisConfig.from_dict(
    {
        "auth": {"openapi": {"bearer": {"bearer": SECRET}, "key": {"api_key": SECRET}}},
        "checks": {"positive_data_acceptance": {"expected-statuses": REFUSALS}},
    }
)
schema = schemathesis.openapi.from_dict(document, config=config).exclude(path="/events")  # has no end


@pytest.fixture(scope="module")
def guarded_url(backend: Backend) -> Iterator[str]:
    with served(backend.settings(gateway_keys=(KEY,))) as url:
        yield url


@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
def test_the_gateway_keeps_to_its_description(case: schemathesis.Case[Any], guarded_url: str) -> None:
    case.call_and_validate(guarded_url, timeout=20)


def test_every_operation_is_described() -> None:
    operations = [operation for item in document["paths"].values() for operation in item.values()]
    assert len(operations) >= 15
    for operation in operations:
        assert operation.get("description") or operation["summary"]
        for status, answer in operation["responses"].items():
            assert answer["description"]
            if status >= "400":
                assert "application/problem+json" in answer["content"], operation["operationId"]


def test_the_headers_that_requests_may_have_are_described() -> None:
    named = {
        parameter["name"]
        for item in document["paths"].values()
        for operation in item.values()
        for parameter in operation.get("parameters", ())
        if parameter["in"] == "header"
    }
    assert named == {"Idempotency-Key", "If-None-Match", "Last-Event-ID", "Prefer"}
