"""The items in the scorer's memory: each encoded once, so that a candidate of a request may be only its id."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Literal

import numpy as np

from models.features import Encoder, FeatureError, Features, item_hashes
from models.spec import FeatureSpec
from models.types import Array

Outcome = Literal["stored", "deleted", "full", "misfit"]

_AT_A_TIME = 1_000  # ids looked at without a pause

_NOBODY = 0  # the row of unknown items: all zero, and never written


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
    is ever copied to make room. Weights are kept of those slots alone whose weight says anything. Features are not.

    Args:
        encoder: of the spec; `fits` says of which other specs the rows are true, too.
        max_items: most items; what comes beyond them is refused.
    """

    def __init__(self, encoder: Encoder, *, max_items: int) -> None:
        #: Whether all items of the log have been read once. Until then an item that is missing may be on its way.
        self.complete = False
        self._encoder, self._layout, self._max_items = encoder, encoder.spec.item, max_items
        columns = [column for table in self._layout.tables for column in table.columns]
        weighted = [column for column in columns if column.field.kind != "categorical"]
        self._weighted = [slot for one in weighted for slot in range(one.start, one.start + one.field.slots)]
        rows = max_items + 1
        self._index = np.zeros((rows, self._layout.slots), dtype=np.int32)
        self._weight = np.zeros((rows, len(self._weighted)), dtype=np.float32)
        self._hash = np.zeros(rows, dtype=np.uint64)
        self._scanned = np.zeros(rows, dtype=np.uint32)  # number of the scan in which the row was written
        self._scan = 0
        self._rows: dict[str, int] = {}
        self._free: list[int] = []
        self._end = _NOBODY + 1  # first row that was never used

    def __len__(self) -> int:
        return len(self._rows)

    def fits(self, spec: FeatureSpec) -> bool:
        """Whether the rows are what `spec` would encode."""
        return spec.item == self._layout

    def find(self, ids: Sequence[str]) -> Found | None:
        """The rows of B ids. None where there are no items, and none are on their way."""
        if self.complete and not self._rows:
            return None
        rows = np.fromiter(map(self._rows.get, ids, repeat(_NOBODY)), np.intp, len(ids))
        known, item_hash = rows != _NOBODY, self._hash.take(rows)
        weight = np.ones((len(ids), self._layout.slots), dtype=np.float32)
        if self._weighted:
            weight[:, self._weighted] = self._weight.take(rows, axis=0)
        if not known.all():
            unknown = np.flatnonzero(~known)
            item_hash[unknown] = item_hashes([ids[place] for place in unknown.tolist()])
            weight[unknown] = 0.0
        return Found(known, self._index.take(rows, axis=0), weight, item_hash)

    def update(self, items: Mapping[str, Features | None]) -> Counter[Outcome]:
        """Stores the features of each id, or forgets it where they are None.

        Takes time in proportion: give it few at a time. Features that do not fit the spec (of another lane, or an older
        one) leave the item unknown rather than as it was before.
        """
        given = {one: features for one, features in items.items() if features is not None}
        fitting, index, weight = self._encode(given)
        outcomes: Counter[Outcome] = Counter()
        outcomes["misfit"] = len(given) - len(fitting)
        self._forget(given.keys() - set(fitting))
        outcomes["deleted"] = self._forget(items.keys() - given.keys())
        places, rows = self._claim(fitting)
        outcomes["stored"], outcomes["full"] = len(rows), len(fitting) - len(rows)
        self._index[rows] = index[places]
        self._weight[rows] = weight[places][:, self._weighted]
        self._hash[rows] = item_hashes([fitting[place] for place in places])
        self._scanned[rows] = self._scan
        return outcomes

    def check(self, item_id: str, features: Features) -> None:
        """Raises FeatureError where `update` would find a misfit; its path begins with "candidates[0]."."""
        self._encoder.items([item_id], [features])

    def begin_scan(self) -> None:
        """From here on every item that still exists is given to `update` again."""
        self._scan += 1

    def unscanned(self) -> Iterator[list[str]]:
        """Ids that were not given since `begin_scan`, a few at a time: `update` must wait until the last of them."""
        pairs = iter(self._rows.items())
        while some := list(islice(pairs, _AT_A_TIME)):
            yield [one for one, row in some if self._scanned[row] != self._scan]

    def _encode(self, given: Mapping[str, Features]) -> tuple[list[str], Array, Array]:
        """(n ids that fit, (n, Ki) int32, (n, Ki) float32)."""
        try:
            return list(given), *self._encoder.items(list(given), list(given.values()))
        except FeatureError:  # somewhere among them
            return self._encode({one: features for one, features in given.items() if self._takes(one, features)})

    def _takes(self, item_id: str, features: Features) -> bool:
        try:
            self.check(item_id, features)
        except FeatureError:
            return False
        return True

    def _claim(self, ids: Sequence[str]) -> tuple[list[int], list[int]]:
        """(places in ids, their rows), without those for which there is no room."""
        places, rows = [], []
        for place, one in enumerate(ids):
            row = self._rows.get(one) or self._unused()
            if row is not None:
                self._rows[one] = row
                places.append(place)
                rows.append(row)
        return places, rows

    def _unused(self) -> int | None:
        """A row for a new item; None where there is no room."""
        if self._free:
            return self._free.pop()
        if self._end > self._max_items:
            return None
        self._end += 1
        return self._end - 1

    def _forget(self, ids: Iterable[str]) -> int:
        """How many of them there were."""
        freed = [row for one in ids if (row := self._rows.pop(one, None)) is not None]
        self._free += freed
        return len(freed)
