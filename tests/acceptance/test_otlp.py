"""Traces as they reach a collector: real processes, OpenTelemetry's own variables, and OTLP over real HTTP."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.eventually import eventually
from tests.root import ROOT
from worker.local.process import Child

PATIENCE = 60.0


class Collector(ThreadingHTTPServer):
    """Takes spans as a collector does, and keeps them by the service that sent them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.spans: list[tuple[str, Span]] = []

    def span(self, service: str, name: str) -> Span | None:
        return next((span for of, span in self.spans if of == service and span.name == name), None)


class Request(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        assert self.headers["Content-Type"] == "application/x-protobuf"
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for each in sent.resource_spans:
            service = next(it.value.string_value for it in each.resource.attributes if it.key == "service.name")
            self.server.spans += [(service, span) for scope in each.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def test_sender_worker_and_event_share_one_trace_at_a_collector(
    collector: Collector, database_url: str, redis_url: str, redis_client: Any, tmp_path: Path
) -> None:
    variables = {
        **os.environ,
        "ENROLLMENT_DATABASE_URL": database_url,
        "ENROLLMENT_BROKER_URL": redis_url,
        "ENROLLMENT_TRACING": "1",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO students (id, name) VALUES (1, 'S')")
        connection.execute("INSERT INTO courses (id, code) VALUES (1, 'C')")
    (tmp_path / "file").write_text('{"command": "enroll", "student_id": 1, "course_ids": [1]}\n', encoding="utf-8")
    sender = {**variables, "OTEL_SERVICE_NAME": "portal"}
    command = [str(Path(sys.executable).parent / "enrollment"), "send", str(tmp_path / "file")]
    subprocess.run(command, env=sender, cwd=ROOT, check=True, capture_output=True)
    command = [sys.executable, "-m", "celery", "-A", "worker", "worker"]
    worker = Child(
        name="worker", command=command, log=tmp_path / "log", cwd=ROOT, env={**variables, "OTEL_SERVICE_NAME": "worker"}
    )
    worker.start()
    try:
        task = "enrollment.apply.v1"
        names = f"process {task}", "apply batch"
        eventually(lambda: all(collector.span("worker", name) for name in names), PATIENCE)
        eventually(lambda: redis_client.exists("enrollment.events"), PATIENCE)
        sent, processed = collector.span("portal", f"send {task}"), collector.span("worker", f"process {task}")
        batch = collector.span("worker", "apply batch")
        assert sent is not None
        assert processed is not None
        assert batch is not None
        assert (processed.trace_id, processed.parent_span_id) == (sent.trace_id, sent.span_id)
        assert [link.span_id for link in batch.links] == [sent.span_id]
        event = json.loads(redis_client.xrange("enrollment.events")[0][1]["event"])
        assert event["traceparent"].startswith(f"00-{sent.trace_id.hex()}-{processed.span_id.hex()}-")
    finally:
        worker.stop()
