"""Touched: which rows of the embedding tables moved since the last version."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from models.networks.click import Params
from models.networks.embedding import TABLE
from models.types import Array


class Touched:
    """A mark for each row that an optimiser with `moves_unread` false has moved: a byte for each row of a table.

    Args:
        params: whose tables.
    """

    def __init__(self, params: Params) -> None:
        self._marks = {
            name: torch.zeros(len(value), dtype=torch.bool) for name, value in params.items() if name.startswith(TABLE)
        }

    def mark(self, read: Iterable[Mapping[str, Tensor]]) -> None:
        """Of each table these rows (N,) move in this step."""
        for places in read:
            for name, rows in places.items():
                self._marks[name][rows] = True

    def rows(self) -> dict[str, Array]:
        """Table -> (N,) int32, ascending."""
        return {name: marks.nonzero().flatten().int().numpy() for name, marks in self._marks.items()}

    def clear(self) -> None:
        for marks in self._marks.values():
            marks.zero_()
