"""Peers: learners that take every step together. Each works on its share of the rows of every batch."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from models.types import Batch


class Peers(Protocol):
    """All of them, as one of them sees it."""

    #: Which of them we are, from 0, and how many there are.
    rank: int
    size: int

    def swap(self, given: Sequence[Tensor], sizes: Sequence[int]) -> Callable[[], list[Tensor]]:
        """Begins to give each peer its (N,) float32.

        Returns:
            What waits for it, and returns what each gives us, which has these sizes.
        """
        ...


def shares(rows: int, parts: int) -> list[slice]:
    """So many rows in parts, possibly empty ones. Together, and in this order, they are all rows."""
    return [slice(rows * part // parts, rows * (part + 1) // parts) for part in range(parts)]


class Rows(NamedTuple):
    """B labelled rows of which a share can be taken."""

    batch: Batch[Tensor]  # with C rows of context
    label: Tensor  # (B,) float32
    context_row: Tensor | None  # (B,) int64, ascending, each row's row of context; None where C = B

    def part(self, share: slice) -> "Rows":
        """Some of them, with the context that they need."""
        index, weight, *item = self.batch
        context, context_row = share, None
        if self.context_row is not None:
            of = self.context_row[share]
            context = slice(int(of[0]), int(of[-1]) + 1) if len(of) else slice(0, 0)
            context_row = of - context.start
        ours = Batch(index[context], weight[context], *(one[share] for one in item))
        return Rows(ours, self.label[share], context_row)
