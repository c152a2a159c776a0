"""Kinds of instruments that the Prometheus client does not have."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from prometheus_client import CollectorRegistry
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from models.types import Array


class ArrayHistogram(Collector):
    """A histogram with one label that takes an array at once: Histogram.observe would take a call a candidate."""

    def __init__(
        self, name: str, documentation: str, label: str, *, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._documentation, self._label = name, documentation, label
        self._bounds = np.array(buckets)
        self._names = [*map(floatToGoString, buckets), "+Inf"]
        self._counts: dict[str, Array] = {}  # label value -> (buckets + 1,) int64
        self._sums: dict[str, float] = {}
        registry.register(self)

    def observe(self, value: str, amounts: Array) -> None:
        """Counts all of `amounts` (n,) under the label value."""
        counts = np.bincount(np.searchsorted(self._bounds, amounts), minlength=len(self._names))
        self._counts[value] = self._counts.get(value, 0) + counts
        self._sums[value] = self._sums.get(value, 0.0) + float(amounts.sum(dtype=np.float64))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, counts in self._counts.items():
            buckets = [(name, float(count)) for name, count in zip(self._names, np.cumsum(counts), strict=True)]
            family.add_metric([value], buckets, self._sums[value])
        yield family


class Owed(Collector):
    """Counting that is put off until somebody asks: many things at once are counted in less time than one by one.

    Must be registered before the instruments that it counts on, for they are read in that order.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        #: Counts what is owed so far.
        self.count: Callable[[], None] = lambda: None
        registry.register(self)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        self.count()
        return iter(())
