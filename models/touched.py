"""Touched: which rows of large arrays moved since the last version."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from models.networks.click import Params
from models.types import Array


class Touched:
    """A mark for each row that was moved: a byte for each row of a table.

    Args:
        tables: embedding tables, and what beliefs keep by row.
    """

    def __init__(self, tables: Params) -> None:
        self._marks = {name: torch.zeros(len(value), dtype=torch.bool) for name, value in tables.items()}

    def mark(self, read: Iterable[Mapping[str, Tensor]]) -> None:
        """Of each table these rows (N,) move in this step."""
        for places in read:
            for name, rows in places.items():
                self._marks[name].index_fill_(0, rows, True)

    def rows(self) -> dict[str, Array]:
        """Table -> (N,) int32, ascending."""
        return {name: marks.nonzero().flatten().int().numpy() for name, marks in self._marks.items()}

    def clear(self) -> None:
        for marks in self._marks.values():
            marks.zero_()
