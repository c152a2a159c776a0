"""Item hash -> row of an array, for all candidates of a request at once.

A dictionary of a million ids costs each look-up several cache misses, one after the other. Here a look-up touches one
cache line, and those of a request overlap. As everywhere an item is its 64-bit hash: among a million items two would be
taken for one with a probability of 3e-8.
"""

from collections.abc import Iterator

import numpy as np

from models.types import Array

WIDTH = 8  # hashes in a bucket: one cache line
FILL = 4  # of them in use where the table is full: about one item in 200 then finds no place in its bucket
_BLOCK = 4_096  # buckets looked at without a pause


class RowTable:
    """A hash table with buckets of fixed width.

    Args:
        most: items that it shall hold. More work, too, and cost more.
    """

    def __init__(self, most: int) -> None:
        buckets = 1 << max(0, (most - 1) // FILL).bit_length()
        self._mask = np.uint64(buckets - 1)
        self._hashes = np.zeros((buckets, WIDTH), dtype=np.uint64)  # 0 where there is room
        self._rows = np.zeros((buckets, WIDTH), dtype=np.int32)
        self._spilled: dict[int, int] = {}  # of buckets that were full

    def find(self, hashes: Array) -> Array:
        """(B,) uint64 -> (B,) intp, 0 where there is none."""
        bucket, rows = self._bucket(hashes), np.zeros(len(hashes), dtype=np.intp)
        place, slot = (self._hashes.take(bucket, axis=0) == hashes[:, None]).nonzero()
        rows[place] = self._rows[bucket[place], slot]
        if self._spilled:
            missing = np.flatnonzero(rows == 0)
            rows[missing] = [self._spilled.get(one, 0) for one in hashes[missing].tolist()]
        return rows

    def add(self, hashes: Array, rows: Array) -> None:
        """Remembers the rows, (n,) and none of them 0, of hashes that are not in the table, (n,) and each once."""
        while len(hashes):
            # Of those that share a bucket one at a time.
            bucket, chosen = np.unique(self._bucket(hashes), return_index=True)
            room = self._hashes[bucket] == 0
            fits, slot = room.any(axis=1), room.argmax(axis=1)
            bucket, slot, placed = bucket[fits], slot[fits], chosen[fits]
            self._hashes[bucket, slot], self._rows[bucket, slot] = hashes[placed], rows[placed]
            spilled = chosen[~fits]
            self._spilled.update(zip(hashes[spilled].tolist(), rows[spilled].tolist(), strict=True))
            hashes, rows = np.delete(hashes, chosen), np.delete(rows, chosen)

    def remove(self, hashes: Array) -> None:
        """Forgets (n,) hashes; those that are not there do not matter."""
        bucket = self._bucket(hashes)
        place, slot = (self._hashes[bucket] == hashes[:, None]).nonzero()
        self._hashes[bucket[place], slot] = 0
        for one in np.delete(hashes, place).tolist():
            self._spilled.pop(one, None)

    def blocks(self) -> Iterator[tuple[Array, Array]]:
        """Everything, some at a time: (n,) hashes and their rows. Those that it told may be removed as it goes."""
        for start in range(0, len(self._hashes), _BLOCK):
            hashes, rows = self._hashes[start : start + _BLOCK], self._rows[start : start + _BLOCK]
            used = hashes != 0
            yield hashes[used], rows[used]
        yield np.array(list(self._spilled), dtype=np.uint64), np.array(list(self._spilled.values()), dtype=np.int32)

    def _bucket(self, hashes: Array) -> Array:
        return (hashes & self._mask).astype(np.intp)
