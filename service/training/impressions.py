"""Impressions: how often each item was shown, for millions of items and a version every second."""

import numpy as np

from models.types import Array


class Impressions:
    """Counts by item: sorted arrays, and a tail of what has not been sorted into them yet.

    Args:
        longest_tail: beyond it, the tail is sorted in; half a MiB.
    """

    def __init__(self, *, longest_tail: int = 1 << 16) -> None:
        self._longest_tail = longest_tail
        self.restore(np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64))

    def add(self, item_hash: Array) -> None:
        """Counts each of (N,) uint64 once more."""
        self._tail.append(item_hash)
        self._tail_size += len(item_hash)
        if self._tail_size > self._longest_tail:
            self._sort()

    def state(self) -> tuple[Array, Array]:
        """Copies: (M,) uint64 item hashes, ascending, and (M,) int64 counts."""
        self._sort()
        return self._hash.copy(), self._count.copy()

    def changed(self) -> tuple[Array, Array]:
        """`state` of the items alone that were shown since `settle`."""
        self._sort()
        return self._hash[self._changed], self._count[self._changed]

    def settle(self) -> None:
        """From here on `changed` counts."""
        self._sort()
        self._changed[:] = False

    def restore(self, item_hash: Array, count: Array) -> None:
        """Continues from `state`; nothing changed since."""
        self._hash, self._count = item_hash.copy(), count.copy()
        self._changed = np.zeros(len(item_hash), dtype=bool)
        self._tail: list[Array] = []
        self._tail_size = 0

    def _sort(self) -> None:
        if not self._tail_size:
            return
        found, count = np.unique(np.concatenate(self._tail), return_counts=True)
        self._tail, self._tail_size = [], 0
        place = np.searchsorted(self._hash, found)
        known = place < len(self._hash)
        known[known] = self._hash[place[known]] == found[known]
        self._count[place[known]] += count[known]
        self._changed[place[known]] = True
        new = place[~known]
        self._hash = np.insert(self._hash, new, found[~known])
        self._count = np.insert(self._count, new, count[~known])
        self._changed = np.insert(self._changed, new, True)
