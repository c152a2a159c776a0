"""The items in the scorer's memory: each encoded once, so that a candidate of a request may be only its id."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.features import Encoder, FeatureError, Features, Row
from models.spec import FeatureSpec
from models.types import Array
from service.scoring.rows import RowTable

Outcome = Literal["stored", "deleted", "full", "misfit"]


@dataclass(frozen=True)
class Found:
    """What the store knows of B items."""

    known: Array  # (B,) bool
    index: Array  # (B, Ki) int32, zero where unknown
    weight: Array  # (B, Ki) float32, likewise
    item_hash: Array  # (B,) uint64, of every item


class ItemStore:
    """Id -> encoded row, under one feature spec. One task writes; `find` may come between any two of its calls.

    The arrays have their full size from the start: the system gives a page only when a row on it is written, so nothing
    is ever copied to make room. Neither ids nor features are kept, and weights only where they say anything.

    Args:
        encoder: of the spec; `fits` says of which other specs the rows are true, too.
        max_items: most items; what comes beyond them is refused.
    """

    def __init__(self, encoder: Encoder, *, max_items: int) -> None:
        #: Whether all items of the log have been read once. Until then an item that is missing may be on its way.
        self.complete = False
        self.encoder = encoder
        self._layout, self._max_items = encoder.spec.item, max_items
        weighted = [column for column in self._layout.columns if column.field.kind != "categorical"]
        self._weighted = [slot for one in weighted for slot in range(one.start, one.start + one.field.slots)]
        rows = max_items + 1  # row 0 is nobody's: unknown items are gathered from it
        self._index = np.zeros((rows, self._layout.slots), dtype=np.int32)
        self._weight = np.zeros((rows, len(self._weighted)), dtype=np.float32)
        self._scanned = np.zeros(rows, dtype=np.uint32)  # number of the scan in which the row was written
        self._scan = 0
        self._table = RowTable(max_items)
        self._free: list[int] = []  # rows whose item is gone
        self._end = 1  # first row that was never used

    def __len__(self) -> int:
        return self._end - 1 - len(self._free)

    def fits(self, spec: FeatureSpec) -> bool:
        """Whether the rows are what `spec` would encode."""
        return spec.item == self._layout

    def find(self, ids: Sequence[str]) -> Found | None:
        """The rows of B ids. None where there are no items, and none are on their way."""
        if self.complete and not len(self):
            return None
        hashes = self.encoder.item_hashes(ids)
        rows = self._table.find(hashes)
        known = rows != 0
        weight = np.ones((len(ids), self._layout.slots), dtype=np.float32)
        if self._weighted:
            weight[:, self._weighted] = self._weight.take(rows, axis=0)
        if not known.all():
            weight[~known] = 0.0
        return Found(known, self._index.take(rows, axis=0), weight, hashes)

    def check(self, ids: Sequence[str], features: Sequence[Features | Row]) -> None:
        """Raises FeatureError where `update` would find a misfit; the path begins at its place, "candidates[0]."."""
        self.encoder.items(ids, features)

    def update(self, items: Mapping[str, Features | Row | None]) -> Counter[Outcome]:
        """Stores the features of each id, or forgets it where they are None.

        Takes time in proportion: give it few at a time. Features that do not fit the spec (of another lane, or an older
        one) leave the item unknown rather than as it was before.
        """
        given = {one: features for one, features in items.items() if features is not None}
        ids, index, weight = self._encode(given)
        outcomes: Counter[Outcome] = Counter()
        outcomes["misfit"] = len(given) - len(ids)
        self._forget(self.encoder.item_hashes(list(given.keys() - set(ids))))
        outcomes["deleted"] = self._forget(self.encoder.item_hashes(list(items.keys() - given.keys())))
        rows = self._claim(self.encoder.item_hashes(ids))
        stored = rows != 0
        outcomes["stored"], outcomes["full"] = int(stored.sum()), int((~stored).sum())
        rows = rows[stored]
        self._index[rows] = index[stored]
        self._weight[rows] = weight[stored][:, self._weighted]
        self._scanned[rows] = self._scan
        return outcomes

    def begin_scan(self) -> None:
        """From here on every item that still exists is given to `update` again."""
        self._scan += 1

    def forget_unscanned(self) -> Iterator[int]:
        """Forgets whatever was not given since `begin_scan`, a part at each step; how many of it each time."""
        for hashes, rows in self._table.blocks():
            yield self._forget(hashes[self._scanned[rows] != self._scan])

    def _encode(self, given: Mapping[str, Features | Row]) -> tuple[list[str], Array, Array]:
        """(n ids that fit, (n, Ki) int32, (n, Ki) float32)."""
        if not given:
            nothing = self._index[:0]
            return [], nothing, nothing
        try:
            return list(given), *self.encoder.items(list(given), list(given.values()))
        except FeatureError:  # somewhere among them
            return self._encode({one: features for one, features in given.items() if self._takes(one, features)})

    def _takes(self, item_id: str, features: Features | Row) -> bool:
        try:
            self.check([item_id], [features])
        except FeatureError:
            return False
        return True

    def _claim(self, hashes: Array) -> Array:
        """The rows of (n,) items, old or new ones, 0 where there is no room."""
        rows = self._table.find(hashes)
        new = np.flatnonzero(rows == 0)
        reused = [self._free.pop() for _ in range(min(len(new), len(self._free)))]
        end = min(self._end + len(new) - len(reused), self._max_items + 1)
        claimed = np.array([*reused, *range(self._end, end)], dtype=np.intp)
        self._end = end
        new = new[: len(claimed)]
        self._table.add(hashes[new], claimed)
        rows[new] = claimed
        return rows

    def _forget(self, hashes: Array) -> int:
        """How many of (n,) items there were."""
        if not len(hashes):
            return 0
        rows = self._table.find(hashes)
        self._table.remove(hashes)
        freed = rows[rows != 0].tolist()
        self._free += freed
        return len(freed)
