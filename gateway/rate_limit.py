"""How much one client may ask for: a token bucket each, in memory, per process."""

from collections import OrderedDict
from collections.abc import Callable
from math import ceil
from time import monotonic
from typing import Final

from gateway.problems import Problem

_BURST: Final = 2  # seconds' worth of requests that may come at once
_CLIENTS: Final = 10_000  # buckets kept; the one unused for longest goes first, and would be full again anyway


class Buckets:
    """Buckets by name. `rate` is in requests per second; 0 means no limit."""

    def __init__(self, rate: float, *, now: Callable[[], float] = monotonic) -> None:
        self._rate = rate
        self._size = max(1.0, rate * _BURST)
        self._now = now
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens, and when there were so many

    def take(self, name: str) -> None:
        """Take a token. Raises a Problem, 429, that says when the next one is there."""
        if not self._rate:
            return
        now = self._now()
        tokens, since = self._buckets.pop(name, (self._size, now))
        tokens = min(self._size, tokens + (now - since) * self._rate)
        self._buckets[name] = (max(0.0, tokens - 1) if tokens >= 1 else tokens, now)
        if len(self._buckets) > _CLIENTS:
            self._buckets.popitem(last=False)
        if tokens < 1:
            seconds = ceil((1 - tokens) / self._rate)
            raise Problem(
                429,
                "too_many_requests",
                f"More than {self._rate:g} requests per second. Wait {seconds} s and send the request again.",
                headers={"Retry-After": str(seconds)},
            )
