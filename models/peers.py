"""Peers: learners that take every step together. Each works on its share of the rows, and all step along the sum."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from models.networks.click import Params
from models.networks.embedding import TABLE
from models.spec import FeatureSpec
from models.types import Array, Batch


class Peers(Protocol):
    """All of them, as one of them sees it."""

    def share(self, rows: int) -> slice:
        """Which of the batch's rows are ours, possibly none. Together the shares are all rows."""
        ...

    def add(self, values: Tensor) -> None:
        """Sums (N,) float32 over all peers, in place and to the same bits everywhere."""
        ...


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


def rows_read(spec: FeatureSpec, batch: Batch[Tensor]) -> dict[str, Tensor]:
    """The rows of each table that a batch reads: parameter -> (N,) int64, ascending."""
    sides = (spec.context, batch.context_index), (spec.item, batch.item_index)
    return {
        f"{TABLE}{table.name}": torch.from_numpy(_distinct(index[:, table.slots].numpy())).long()
        for layout, index in sides
        for table in layout.tables
    }


def add_up(params: Params, read: Mapping[str, Tensor], p: Tensor, peers: Peers) -> None:
    """Sums the gradients and `p` over all peers, in one exchange. Of the tables only `rows_read` travel.

    Args:
        params: with our gradients, or none where there are none.
        read: by the whole batch; the same for all peers.
        p: (B,) float32, zero where the rows are not ours.
    """
    shapes = {
        name: torch.Size((len(read[name]), value.shape[1])) if name in read else value.shape
        for name, value in params.items()
        if value.requires_grad
    }
    sizes = [*(shape.numel() for shape in shapes.values()), len(p)]
    flat = torch.zeros(sum(sizes))
    *parts, all_p = torch.split(flat, sizes)
    gradients = {name: part.view(shapes[name]) for name, part in zip(shapes, parts, strict=True)}
    for name, gradient in gradients.items():
        ours = params[name].grad
        if ours is None:
            continue
        if name in read:
            gradient.index_add_(0, torch.searchsorted(read[name], ours._indices()[0]), ours._values())
        else:
            gradient.copy_(ours)
    all_p.copy_(p)
    peers.add(flat)
    p.copy_(all_p)
    for name, gradient in gradients.items():
        params[name].grad = _sparse(read[name], gradient, params[name]) if name in read else gradient


def _distinct(index: Array) -> Array:
    """Ascending. A tenth of the time of torch.unique and np.unique."""
    ordered = np.sort(index, axis=None)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def _sparse(rows: Tensor, values: Tensor, table: Tensor) -> Tensor:
    return torch.sparse_coo_tensor(rows[None], values, table.shape, is_coalesced=True, check_invariants=False)
