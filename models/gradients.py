"""Gradients: a batch's is the sum of those of its parts, in one order whoever computes them.

The sum of floats depends on their order, and an optimiser that divides a gradient by its size makes of the last bit of
one near 0 a step like any other: within a hundred steps, weights whose gradients were added up in another order differ
in the second digit. So each part is added up by itself, and then the parts, the first ones first. A learner with N
parts and N peers with one each have the same bits.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from models.networks.click import Params
from models.networks.embedding import TABLE
from models.rows import added, distinct, sparse
from models.spec import FeatureSpec
from models.types import Batch

Places = Mapping[str, Tensor]  # table -> (N,) int64, ascending: some of its rows


class Gradient(NamedTuple):
    """Of the click model, as a part of a batch has it."""

    rows: Places
    values: Mapping[str, Tensor]  # table -> (N, D), of these
    others: Tensor  # (P,), of what is not a table, one parameter after the other


def rows_read(spec: FeatureSpec, batch: Batch[Tensor]) -> Places:
    """What a batch reads of each table."""
    sides = (spec.context, batch.context_index), (spec.item, batch.item_index)
    return {
        f"{TABLE}{table.name}": torch.from_numpy(distinct(index[:, table.slots].numpy())).long()
        for layout, index in sides
        for table in layout.tables
    }


def taken(params: Params, read: Places) -> Gradient:
    """What a backward pass has left at the parameters, which then have none.

    Args:
        read: of each table at least the rows that it went through.
    """
    values = {name: _values(params[name], rows) for name, rows in read.items()}
    others = torch.cat([_dense(value).flatten() for name, value in params.items() if name not in read])
    for value in params.values():
        value.grad = None
    return Gradient(read, values, others)


def give(params: Params, parts: Sequence[Gradient]) -> None:
    """Leaves the sum of the parts at the parameters, as a backward pass would."""
    rows, values, others = zip(*parts, strict=True)
    for name in rows[0]:
        read, found = (torch.cat([one[name] for one in side]) for side in (rows, values))
        params[name].grad = sparse(read, found, params[name])
    moved = {name: value for name, value in params.items() if name not in rows[0]}
    totals = torch.split(reduce(torch.add, others), [value.numel() for value in moved.values()])
    for value, total in zip(moved.values(), totals, strict=True):
        value.grad = total.view_as(value)


def _values(table: Tensor, rows: Tensor) -> Tensor:
    """A table's gradient at these rows, (N, D)."""
    if table.grad is None:
        return torch.zeros(len(rows), table.shape[1])
    found, values = added(table.grad._indices()[0], table.grad._values())
    if len(found) == len(rows):
        return values
    return values.new_zeros(len(rows), table.shape[1]).index_copy_(0, torch.searchsorted(rows, found), values)


def _dense(value: Tensor) -> Tensor:
    return torch.zeros_like(value) if value.grad is None else value.grad
