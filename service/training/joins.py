"""Joins: one for each partition of the log, merged into one sequence of closed impressions.

A request and its feedback are in one partition, so partitions can be joined apart, by whichever process reads them. The
order of what closes is a property of the log: of its entries' ids alone.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping
from operator import attrgetter

from models.types import Array
from service.training.join import Join
from service.training.memory import Joined


class Joins:
    """The joins of some partitions.

    Args:
        make: a join with nothing in it, for a partition.
    """

    def __init__(self, make: Callable[[], Join]) -> None:
        self._make = make
        self._joins: dict[str, Join] = {}  # by partition

    @property
    def pending(self) -> int:
        """Rows that wait."""
        return sum(join.pending for join in self._joins.values())

    @property
    def now_ms(self) -> int:
        """The newest of their clocks."""
        return max((join.now_ms for join in self._joins.values()), default=0)

    def of(self, stream: str) -> Join:
        """The join of the partition that a stream is of."""
        partition = stream.rpartition(":")[0]
        if partition not in self._joins:
            self._joins[partition] = self._make()
        return self._joins[partition]

    def take(self, until_ms: int) -> Joined:
        """As of one join; what closed is merged."""
        found = [self._joins[partition].take(until_ms) for partition in sorted(self._joins)]
        closed = list(heapq.merge(*(one.closed for one in found), key=attrgetter("order")))
        refused = [pair for one in found for pair in one.refused]
        return Joined(closed, refused, sum((one.counts for one in found), Counter()))

    def state(self) -> dict[str, Array]:
        """All that the future depends on, "partition/name" -> array; `take` comes first."""
        return {
            f"{partition}/{name}": array
            for partition, join in sorted(self._joins.items())
            for name, array in join.state().items()
        }

    def restore(self, state: Mapping[str, Array]) -> None:
        """Continues from `state`, or from the part of one that is about some partitions."""
        self._joins = {}
        found: dict[str, dict[str, Array]] = {}
        for key, array in state.items():
            partition, _, name = key.rpartition("/")
            found.setdefault(partition, {})[name] = array
        for partition, arrays in found.items():
            self.of(f"{partition}:").restore(arrays)
