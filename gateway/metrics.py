"""Numbers for Prometheus, of one process."""

from collections.abc import Iterable
from functools import cache
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from gateway.event_listener import EventListener

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Requests by the template of their route, never by their path, which names students."""

    def __init__(self, listener: EventListener) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "enrollment_gateway_requests",
            "Requests answered.",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "enrollment_gateway_request_seconds",
            "Seconds until the answer began; of a write, with the wait for its outcome.",
            ["method", "route"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._commands = Counter(
            "enrollment_gateway_commands_sent", "Commands put on the queue.", ["command"], registry=self._registry
        )
        self._of = cache(  # to look for labels takes longer than to count
            lambda method, route, status: (
                self._requests.labels(method, route, str(status)),
                self._seconds.labels(method, route),
            )
        )
        for name, about, value in (
            ("waiters", "Requests that wait for an outcome.", lambda: listener.waiting),
            ("event_streams", "Streams of events that are open.", lambda: listener.watching),
            ("event_stream_connected", "1 while the gateway reads the event stream.", lambda: listener.live),
        ):
            Gauge(f"enrollment_gateway_{name}", about, registry=self._registry).set_function(value)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        requests, times = self._of(method, route, status)
        requests.inc()
        times.observe(seconds)

    def sent(self, commands: Iterable[str]) -> None:
        """Count commands, each by its kind."""
        for command in commands:
            self._commands.labels(command).inc()

    def text(self) -> bytes:
        """Return the numbers in Prometheus's text format."""
        return generate_latest(self._registry)
