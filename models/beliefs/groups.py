"""Groups: what the click model did not foresee of items that share a value, such as a campaign or a story.

The field of the feature spec with `group = true` says which do. Residuals of a group are those of its items
(`models.beliefs.residuals`), of which there are more: that all of them are clicked more than the model has it is known
long before anything is known of one. Without such a field there is nothing to keep.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from models.beliefs.belief import ByRow, Lesson, State
from models.beliefs.residuals import residuals
from models.networks.click import ClickNetwork, Params
from models.spec import Column, FeatureSpec
from models.types import Batch


def group_column(spec: FeatureSpec) -> Column | None:
    """The item field whose values are groups."""
    columns = [column for table in spec.item.tables for column in table.columns]
    return next((column for column in columns if column.field.group), None)


@dataclass(frozen=True, kw_only=True)
class Groups(ByRow):
    """S and I of each group, over all that this lane learned."""

    weighs: ClassVar[bool] = True

    name: str = "groups"

    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        column = group_column(network.spec)
        names = ("residual", "information") if column else ()
        return State(kept={name: torch.zeros(column.field.rows) for name in names if column})

    def note(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> None:
        if state:
            residual, information = residuals(lesson)
            rows = self.rows(network.spec, lesson.batch)
            state["residual"].index_add_(0, rows, residual)
            state["information"].index_add_(0, rows, information)

    def rows(self, spec: FeatureSpec, batch: Batch[Tensor]) -> Tensor:
        column = group_column(spec)
        if column is None:
            return batch.item_index.new_zeros(0, dtype=torch.int64)
        return batch.item_index[:, column.start].long() - column.offset

    def effect(self, network: ClickNetwork, state: Params, batch: Batch[Tensor], variance: float) -> Tensor:
        """The mean of what the model's log odds lack, given a normal prior, to first order, (B,)."""
        rows = self.rows(network.spec, batch)
        return state["residual"][rows] / (1.0 / variance + state["information"][rows])


def raised(p: Tensor, effect: Tensor) -> Tensor:
    """Click probabilities p (B,) where the log odds are so much higher, to first order: of rare clicks the quotient of
    those that came and those that were foreseen."""
    return torch.clamp(p + p * (1.0 - p) * effect, 1e-6, 1.0 - 1e-6)
