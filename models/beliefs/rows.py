"""Rows: an example as the table rows that it reads, each with its weight: the features of a linear model.

A categorical value is one row of weight 1, a multi-hot value a row for each of its parts, a number one row weighted by
the number (`models.spec`). Two parts of a multi-hot value in one bucket count as two features.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from models.beliefs.belief import Lesson
from models.networks.click import ClickNetwork, Params
from models.spec import Column, Layout, Table
from models.types import Batch


class Read(NamedTuple):
    """What R rows of one side read of one field."""

    table: Table
    column: Column
    row: Tensor  # (R, slots) int64, of the table
    weight: Tensor  # (R, slots) float32, 0 where a slot is empty


def rows_of(column: Column, batch: Batch[Tensor]) -> Tensor:
    """What each item reads of a categorical field, (B,) int64 among the field's rows: 0 is no value."""
    return batch.item_index[:, column.start].long() - column.offset


def fields(layout: Layout, index: Tensor, weight: Tensor) -> Iterator[Read]:
    """Field by field, of one side's part of a batch."""
    for table in layout.tables:
        for column in table.columns:
            slots = slice(column.start, column.start + column.field.slots)
            row, weights = index[:, slots].long(), weight[:, slots]
            if column.field.kind == "categorical":  # theirs is never read
                weights = torch.ones_like(weights)
            yield Read(table, column, row, weights)


def sides(network: ClickNetwork, batch: Batch[Tensor]) -> tuple[list[Read], list[Read]]:
    """Fields of the context (C rows) and of the items (B rows)."""
    spec = network.spec
    context = fields(spec.context, batch.context_index, batch.context_weight)
    return list(context), list(fields(spec.item, batch.item_index, batch.item_weight))


def of_examples(network: ClickNetwork, lesson: Lesson) -> list[Read]:
    """All fields, each of B examples."""
    context, item = sides(network, lesson.batch)
    if lesson.context_row is not None:
        rows = lesson.context_row
        context = [one._replace(row=one.row[rows], weight=one.weight[rows]) for one in context]
    return context + item


def weighted_sum(read: list[Read], values: Mapping[str, Tensor], *, power: int = 1) -> Tensor | float:
    """Sum over slots of weight^power times the value of the row: (R,), or 0 where there are no fields.

    Args:
        values: table name -> (rows,).
    """
    return sum((one.weight**power * values[one.table.name][one.row]).sum(1) for one in read)


def zeros(network: ClickNetwork, prefix: str, *, dtype: torch.dtype = torch.float32) -> Params:
    """A number for each row of each table, by "<prefix>.<table>"."""
    layouts = (network.spec.context, network.spec.item)
    return {
        f"{prefix}.{table.name}": torch.zeros(table.rows, dtype=dtype) for layout in layouts for table in layout.tables
    }


def by_table(state: Params, prefix: str) -> Params:
    """Of `zeros`, by table name again."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in state.items() if name.startswith(start)}
