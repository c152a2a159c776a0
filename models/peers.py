"""Peers: learners that take every step together. Each works on its share of the rows of every batch."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from models.types import Batch


class Peers(Protocol):
    """All of them, as one of them sees it."""

    #: Which of them we are, from 0, and how many there are.
    rank: int
    size: int

    def swap(self, given: Sequence[Tensor], sizes: Sequence[int]) -> list[Tensor]:
        """Gives each peer its (N,) float32. Returns what each gives us, which has these sizes."""
        ...


def shares(rows: int, parts: int) -> list[slice]:
    """So many rows in parts, possibly empty ones. Together, and in this order, they are all rows."""
    return [slice(rows * part // parts, rows * (part + 1) // parts) for part in range(parts)]


class Rows(NamedTuple):
    """B labelled rows of which a share can be taken."""

    batch: Batch[Tensor]  # with C rows of context
    label: Tensor  # (B,) float32
    context_row: Tensor | None  # (B,) int64, each row's row of context; None where C = B

    def part(self, share: slice) -> "Rows":
        """Some of them, with the context that they need."""
        index, weight, *item = self.batch
        item = [one[share] for one in item]
        if self.context_row is None:
            return Rows(Batch(index[share], weight[share], *item), self.label[share], None)
        read, context_row = torch.unique(self.context_row[share], return_inverse=True)
        return Rows(Batch(index[read], weight[read], *item), self.label[share], context_row)
