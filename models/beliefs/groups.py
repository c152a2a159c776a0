"""Groups: what the click model did not foresee of items that share a value, such as a campaign or a story.

The field of the feature spec with `group = true` says which do. Residuals of a group are those of its items
(`models.beliefs.residuals`), of which there are more: that all of them are clicked more than the model has it is known
long before anything is known of one. Without such a field there is nothing to keep. Items without a value are no group.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from models.beliefs.belief import ByRow, Lesson, State
from models.beliefs.residuals import residuals
from models.beliefs.rows import rows_of
from models.networks.click import ClickNetwork, Params
from models.spec import Column, FeatureSpec
from models.types import Batch


def group_column(spec: FeatureSpec) -> Column | None:
    """The item field whose values are groups."""
    return next((column for column in spec.item.columns if column.field.group), None)


@dataclass(frozen=True, kw_only=True)
class Groups(ByRow):
    """S and I of each group, over all that this lane learned."""

    weighs: ClassVar[bool] = True

    name: str = "groups"

    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        column = group_column(network.spec)
        if column is None:
            return State()
        return State(kept={name: torch.zeros(column.field.rows) for name in _names(column)})

    def note(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> None:
        column = group_column(network.spec)
        if column is None:
            return
        rows = rows_of(column, lesson.batch)
        for name, value in zip(_names(column), residuals(lesson), strict=True):
            state[name].index_add_(0, rows, torch.where(rows > 0, value, 0.0))

    def rows(self, spec: FeatureSpec, batch: Batch[Tensor]) -> Tensor:
        column = group_column(spec)
        if column is None:
            return batch.item_index.new_zeros(0, dtype=torch.int64)
        return rows_of(column, batch)

    def effect(self, column: Column, state: Params, batch: Batch[Tensor], variance: Tensor) -> tuple[Tensor, Tensor]:
        """Of each item, whether it has a group, and the mean of what the model's log odds lack there, to first order,
        given a normal prior: (B,) bool, (B,)."""
        rows = rows_of(column, batch)
        residual, information = (state[name][rows] for name in _names(column))
        return rows > 0, residual / (1.0 / variance + information)


def _names(column: Column) -> tuple[str, str]:
    """Of S and I. With that of the field: sums of another field's groups are refused."""
    return f"{column.field.name}.residual", f"{column.field.name}.information"


def raised(p: Tensor, effect: Tensor) -> Tensor:
    """Click probabilities p (B,) where the log odds are so much higher, to first order: of rare clicks the quotient of
    those that came and those that were foreseen."""
    return apart(p + p * (1.0 - p) * effect)


def apart(p: Tensor) -> Tensor:
    """Apart from 0 and 1, so that p (1 - p) is a divisor."""
    return torch.clamp(p, 1e-6, 1.0 - 1e-6)
