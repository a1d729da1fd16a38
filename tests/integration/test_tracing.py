"""One trace from whoever sends a command to its event, with spans in memory; and nothing of it where it is off."""

import asyncio
import json
import subprocess
import sys
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextvars import copy_context
from dataclasses import replace
from typing import Any
from uuid import uuid4

import httpx
import pytest
from celery import Celery
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import SecretStr
from redis import Redis
from sqlalchemy import Engine

from enrollment.client import Client
from enrollment.names import ENROLL, QUEUE
from tasks.messages import Message
from tests.gateway import served
from tests.integration.conftest import STREAM, message
from worker import tracing
from worker.publishing import Publisher
from worker.service import Service
from worker.settings import Settings

memory = InMemorySpanExporter()
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def provider() -> TracerProvider:
    """Give the provider of this process: OpenTelemetry takes one for its whole life."""
    found = TracerProvider()
    found.add_span_processor(SimpleSpanProcessor(memory))
    trace.set_tracer_provider(found)
    return found


@pytest.fixture
def spans(provider: TracerProvider) -> Iterator[Callable[[], list[ReadableSpan]]]:
    """Give a function that returns the spans that have ended, with tracing on."""
    memory.clear()
    tracing.use(provider)
    yield lambda: list(memory.get_finished_spans())
    tracing.use(None)


def taken(redis_client: Any) -> Message:
    """Take the message in the queue, as a worker does."""
    raw = json.loads(redis_client.rpop(QUEUE))
    headers = raw["headers"]
    body = json.loads(b64decode(raw["body"]))
    return Message(headers["task"], headers["id"], headers["id"], body[0], body[1], headers)


def apply(service: Service, *messages: Message) -> tracing.TracedBatch:
    with tracing.batch(messages) as traced:
        traced.came_of(service.handle(traced.messages))
    return traced


def span_id(traceparent: str) -> int:
    return int(traceparent.split("-")[2], 16)


def test_a_command_of_the_client_has_one_trace_up_to_its_event(
    spans: Callable[[], list[ReadableSpan]], service: Service, redis_client: Redis, redis_url: str, events: Any
) -> None:
    with trace.get_tracer("tests").start_as_current_span("request") as request, Client(redis_url) as client:
        client.enroll(1, [10])
    apply(service, taken(redis_client), message(ENROLL, 2, [10]))
    found = {span.name: span for span in spans()}
    sent, processed, batch = found[f"send {ENROLL}"], found[f"process {ENROLL}"], found["apply batch"]
    assert sent.parent == request.get_span_context()
    assert processed.parent is not None
    assert processed.parent.span_id == sent.context.span_id
    assert {it.context.trace_id for it in (sent, processed)} == {request.get_span_context().trace_id}
    assert [link.context.span_id for link in batch.links] == [sent.context.span_id]
    assert [link.context.span_id for link in processed.links] == [batch.context.span_id]
    assert (processed.attributes or {})["enrollment.outcome"] == "applied"
    mine, other = events()
    assert span_id(mine["traceparent"]) == processed.context.span_id
    assert "traceparent" not in other


@pytest.fixture
def stock(provider: TracerProvider, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """Give a producer of Celery's own, instrumented by OpenTelemetry's own."""
    monkeypatch.setenv("ENROLLMENT_BROKER_URL", redis_url)  # the instrumentation looks at the current app as well
    instrumentor: Any = CeleryInstrumentor  # untyped
    instrumentor().instrument()
    app = Celery(config_source={"broker_url": redis_url}, set_as_current=False)
    yield app
    app.close()
    instrumentor().uninstrument()


@pytest.mark.filterwarnings("ignore::celery.exceptions.CPendingDeprecationWarning")  # the current app is made by it
def test_a_stock_producer_with_its_own_instrumentation_is_followed(
    spans: Callable[[], list[ReadableSpan]], service: Service, redis_client: Redis, stock: Celery, events: Any
) -> None:
    def send() -> int:
        with trace.get_tracer("tests").start_as_current_span("request") as request:
            stock.send_task(ENROLL, [1, [10]], task_id=str(uuid4()), queue=QUEUE)
        return request.get_span_context().trace_id

    trace_id = copy_context().run(send)  # the instrumentation leaves its span in the context
    apply(service, taken(redis_client))
    [event] = events()
    assert int(event["traceparent"].split("-")[1], 16) == trace_id
    assert {span.context.trace_id for span in spans() if span.name == f"process {ENROLL}"} == {trace_id}


def test_an_event_that_the_relay_publishes_after_an_outage_has_the_same_text(
    service: Service, redis_client: Any, engine: Engine, publisher: Publisher
) -> None:
    headers = {"traceparent": PARENT, "tracestate": 'vendor="a"'}
    service.handle([replace(message(ENROLL, 1, [10]), headers=headers)])
    [(_, first)] = redis_client.xrange(STREAM)
    assert json.loads(first["event"])["traceparent"] == PARENT
    redis_client.flushdb()
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO outbox (batch_id, command_ids) SELECT gen_random_uuid(), array_agg(command_id) FROM commands"
        )
    assert service.relay(older_than=0) == 1
    [(_, again)] = redis_client.xrange(STREAM)
    assert again == first


def test_each_of_the_requests_that_come_together_has_its_trace_and_no_span_names_an_id(
    spans: Callable[[], list[ReadableSpan]], redis_url: str, database_url: str, redis_client: Redis
) -> None:
    url = SecretStr(redis_url)
    with served(Settings(database_url=SecretStr(database_url), broker_url=url, gateway_rate=0)) as address:

        async def post() -> list[int]:
            async with httpx.AsyncClient(base_url=address, headers={"Prefer": "respond-async"}) as client:
                writes = (client.post(f"/students/{77000 + n}/courses", json={"course_id": 10}) for n in range(5))
                return [answer.status_code for answer in await asyncio.gather(*writes)]

        assert asyncio.run(post()) == [202] * 5
    of_requests = [span for span in spans() if span.name == "POST /students/{student_id}/courses"]
    traces = [span.context.trace_id for span in of_requests if span.context]
    sent = [taken(redis_client).headers["traceparent"] for _ in range(5)]
    assert len(set(traces)) == 5
    assert {int(traceparent.split("-")[1], 16) for traceparent in sent} == set(traces)
    assert len(spans()) == 2 * 5  # the request, and the message that was sent
    assert "7700" not in "".join(span.to_json() for span in spans())


@pytest.mark.usefixtures("executed")
def test_without_opentelemetry_everything_works_and_a_wish_for_traces_is_answered_with_a_sentence() -> None:
    code = """
import sys
sys.modules["opentelemetry"] = None  # as if it were not installed
from enrollment.client.tracing import sending
from worker import tracing
from worker.settings import Settings, SettingsError
with sending("task", "queue", "id", 1) as headers, tracing.batch([]) as batch, tracing.serving({}, "GET") as span:
    assert (dict(headers), batch.trace_id, span) == ({}, None, None)
tracing.configure(Settings(), "nothing")
try:
    tracing.configure(Settings(tracing=True), "something")
except SettingsError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert "pip install 'enrollment-worker[tracing]'" in done.stdout
