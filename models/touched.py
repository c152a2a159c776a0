"""Touched: which rows of the embedding tables moved since the last version."""

import torch

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

    def mark(self, params: Params) -> None:
        """To be called between the backward pass and the step."""
        for name, marks in self._marks.items():
            gradient = params[name].grad
            if gradient is not None:
                marks[gradient._indices()[0]] = True

    def rows(self) -> dict[str, Array]:
        """Table -> (N,) int32, ascending."""
        return {name: marks.nonzero().flatten().int().numpy() for name, marks in self._marks.items()}

    def clear(self) -> None:
        for marks in self._marks.values():
            marks.zero_()
