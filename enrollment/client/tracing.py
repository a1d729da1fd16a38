"""The trace of a program that sends, where it traces with OpenTelemetry; where it does not, this costs nothing."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_NONE: Mapping[str, str] = {}
# OpenTelemetry looks for it whenever it is asked, which would be a tenth of what a message costs.
_BY_NAME = "OTEL_PYTHON_TRACER_PROVIDER" in os.environ  # noqa: TID251 - its own setting


def is_traced() -> bool:
    """Tell whether the program traces: whoever does has imported it, and said where spans go."""
    trace = sys.modules.get("opentelemetry.trace")  # redis-py imports it where it is installed
    if trace is None or (getattr(trace, "_TRACER_PROVIDER", trace) is None and not _BY_NAME):
        return False
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@contextmanager
def sending(task: str, queue: str, message_id: str, commands: int) -> Iterator[Mapping[str, str]]:
    """Trace the sending of one message; give the headers with which its trace goes on in the worker."""
    if not is_traced():
        yield _NONE
        return
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    about: dict[str, str | int] = {
        "messaging.operation.type": "send",
        "messaging.destination.name": queue,
        "messaging.message.id": message_id,
        "messaging.batch.message_count": commands,
    }
    tracer = trace.get_tracer("enrollment.client")
    with tracer.start_as_current_span(f"send {task}", kind=trace.SpanKind.PRODUCER, attributes=about):
        headers: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(headers)
        yield headers
