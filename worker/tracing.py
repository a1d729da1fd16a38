"""Traces with OpenTelemetry, where ENROLLMENT_TRACING asks for them; else nothing here imports it.

A command has one trace, from whoever sent it to its event. A batch has one of its own, linked to those of its messages.
Where spans go, and how many, OpenTelemetry's own variables say (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, ...).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from enrollment.traces import attributes_of, trace_of
from worker.settings import Settings, SettingsError

if TYPE_CHECKING:
    from tasks.messages import Message

_tracer: Any = None  # None: off


def configure(settings: Settings, service: str) -> None:
    """Begin to trace, as the service of this name, if the settings say so. Raises SettingsError."""
    if not settings.tracing:
        return
    try:
        from opentelemetry import context, trace  # noqa: PLC0415 - an extra
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ModuleNotFoundError:
        needed = "pip install 'enrollment-worker[tracing]'"
        raise SettingsError(f"ENROLLMENT_TRACING is set, and OpenTelemetry is not there: {needed}.") from None
    resource = Resource.create({"service.name": service}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    use(provider)
    if settings.traceparent:
        context.attach(_extract({"traceparent": settings.traceparent}))


def use(provider: Any) -> None:
    """Trace with this provider from now on; None: not any more."""
    global _tracer  # noqa: PLW0603 - one per process, as OpenTelemetry's own
    _tracer = None if provider is None else provider.get_tracer("enrollment")


@dataclass(frozen=True, slots=True)
class TracedBatch:
    """Messages whose headers name the spans of their processing, and the id of the batch's trace, for the log."""

    messages: "Sequence[Message]"
    trace_id: str | None = None
    spans: Sequence[Any] = ()  # per message, None where it came without a trace

    def came_of(self, outcomes: Sequence[str]) -> None:
        """Note what came of the messages."""
        for span, outcome in zip(self.spans, outcomes, strict=False):
            if span is not None:
                span.set_attribute("enrollment.outcome", outcome)


@contextmanager
def batch(messages: "Sequence[Message]") -> Iterator[TracedBatch]:
    """Trace a batch, and each of its messages that came with a trace; each is linked to the other."""
    if _tracer is None:
        yield TracedBatch(messages)
        return
    from opentelemetry.context import Context  # noqa: PLC0415 - an extra
    from opentelemetry.trace import Link, SpanKind, format_trace_id, get_current_span  # noqa: PLC0415

    parents = [_extract(attributes_of(trace)) if (trace := trace_of(it.headers)) else None for it in messages]
    links = [Link(get_current_span(parent).get_span_context()) for parent in parents if parent is not None]
    about = {"messaging.operation.type": "process", "messaging.batch.message_count": len(messages)}
    with ExitStack() as stack:
        span = _tracer.start_span("apply batch", Context(), SpanKind.CONSUMER, about, links)
        stack.callback(span.end)
        spans = []
        for message, parent in zip(messages, parents, strict=True):
            each = None
            if parent is not None:
                said = {"messaging.operation.type": "process", "messaging.message.id": message.task_id[:100]}
                linked = [Link(span.get_span_context())]
                each = _tracer.start_span(f"process {message.task}", parent, SpanKind.CONSUMER, said, linked)
                stack.callback(each.end)
            spans.append(each)
        traced = [it if each is None else _continued(it, each) for it, each in zip(messages, spans, strict=True)]
        yield TracedBatch(traced, format_trace_id(span.get_span_context().trace_id), spans)


@contextmanager
def serving(headers: Mapping[str, str], name: str) -> Iterator[Any]:
    """Trace a request, as part of its caller's trace where that is said. Give its span, None where that is off."""
    if _tracer is None:
        yield None
        return
    from opentelemetry.trace import SpanKind  # noqa: PLC0415 - an extra

    with _tracer.start_as_current_span(name, context=_extract(headers), kind=SpanKind.SERVER) as span:
        yield span


def trace_id(span: Any) -> str | None:
    """Return the id of a span's trace, for the log."""
    return None if span is None else f"{span.get_span_context().trace_id:032x}"


def _continued(message: "Message", span: Any) -> "Message":
    from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - an extra
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    headers = dict(message.headers)
    TraceContextTextMapPropagator().inject(headers, set_span_in_context(span))
    return replace(message, headers=headers)


def _extract(headers: Mapping[str, str]) -> Any:
    from opentelemetry.context import Context  # noqa: PLC0415 - an extra
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract(headers, Context())
