"""Embedding: encoded rows of one side become a vector. Every field is a bag of weighted table rows (`models.spec`)."""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from models.spec import Layout

#: Prefix of the embedding tables among the parameters.
TABLE = "embedding."


def is_table(name: str) -> bool:
    """Whether a parameter of this name is an embedding table: the click model's, or that of another below a prefix."""
    return f".{TABLE}" in f".{name}"


def pool(params: Mapping[str, Tensor], layout: Layout, index: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of each field's rows: (R, K) -> (R, width of the side).

    The gradients of the tables are sparse: a batch reads few of their rows.
    """
    parts = []
    for table in layout.tables:
        start, end = table.slots.start, table.slots.stop
        # Of all there is, nothing to cut out.
        slots = table.slots if len(layout.tables) > 1 else slice(None)
        rows = functional.embedding(index[:, slots], params[f"{TABLE}{table.name}"], sparse=True)  # (R, slots, width)
        # `models.spec` puts them first: their weight is 1, and they need no sum.
        plain = sum(column.field.kind == "categorical" for column in table.columns)
        if plain == len(table.columns):
            parts.append(rows.flatten(1))
            continue
        parts.append(rows[:, :plain].flatten(1))
        weighted = rows[:, plain:] * weight[:, start + plain : end, None]
        for column in table.columns[plain:]:
            begin = column.start - start - plain
            parts.append(weighted[:, begin : begin + column.field.slots].sum(1))
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts, dim=1) if parts else weight.new_zeros(weight.shape[0], 0)
