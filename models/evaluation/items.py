"""The items of a log or a world, each encoded once and known by its number."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from models.features import Encoder, Features, item_hashes
from models.spec import FeatureSpec
from models.types import Array


class Items:
    """Grows as items appear; the number of an item is its place in the order of appearance.

    Args:
        spec: of their features.
        known: features of items that may appear, by id.

    Attributes:
        index: (N, Ki) int32 encoded rows.
        weight: (N, Ki) float32.
        hash: (N,) uint64.
    """

    def __init__(self, spec: FeatureSpec, known: Mapping[str, Features] = MappingProxyType({})) -> None:
        self._encoder, self._known = Encoder(spec), known
        self._number: dict[str, int] = {}
        self.index = np.zeros((0, spec.item.slots), dtype=np.int32)
        self.weight = np.zeros((0, spec.item.slots), dtype=np.float32)
        self.hash = np.zeros(0, dtype=np.uint64)

    def __len__(self) -> int:
        return len(self._number)

    def add(self, ids: Sequence[str], features: Sequence[Features | None]) -> None:
        """Items that were not known, each id once."""
        self._number |= {one: number for number, one in enumerate(ids, start=len(self._number))}
        index, weight = self._encoder.items(ids, features)
        self.index, self.weight = np.concatenate([self.index, index]), np.concatenate([self.weight, weight])
        self.hash = np.concatenate([self.hash, item_hashes(ids)])

    def numbers(self, ids: Sequence[str]) -> Array:
        """(len(ids),) int64. Ids appear by being asked for, with the features that are known."""
        unseen = [one for one in dict.fromkeys(ids) if one not in self._number]
        if unseen:
            self.add(unseen, [self._known.get(one) for one in unseen])
        return np.array([self._number[one] for one in ids], dtype=np.int64)
