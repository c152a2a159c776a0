"""Residuals: what the click model did not foresee of each item.

    S = sum of y - p,  I = sum of p (1 - p)

over the item's examples, p what the click model said of each before it learned it. They are the slope and the curvature
at 0 of the log likelihood of a number that the model's log odds lack.

Items are told apart by their ids, of which those of one hash bucket count as one. Where the features hold no id, what
the model itself can tell apart by the rows that it reads are the items, by a hash of these rows.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from models.beliefs.belief import ByRow, Lesson, State
from models.beliefs.counts import id_column, id_rows
from models.networks.click import ClickNetwork, Params
from models.spec import FeatureSpec
from models.types import Batch

_PRIME, _BASE = 65_537, 40_503  # of the hash of items without an id: sum of row times base^slot, by remainder


@dataclass(frozen=True, kw_only=True)
class Residuals(ByRow):
    """Sums over all that this lane learned."""

    weighs: ClassVar[bool] = True

    name: str = "residuals"

    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        rows = id_column(network.spec).field.rows if _has_id(network.spec) else _PRIME
        return State(kept={name: torch.zeros(rows) for name in ("residual", "information")})

    def note(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> None:
        rows = self.rows(network.spec, lesson.batch)
        residual, information = residuals(lesson)
        state["residual"].index_add_(0, rows, residual)
        state["information"].index_add_(0, rows, information)

    def of(self, network: ClickNetwork, state: Params, batch: Batch[Tensor]) -> tuple[Tensor, Tensor]:
        """S and I of the candidates, (B,) each."""
        rows = self.rows(network.spec, batch)
        return state["residual"][rows], state["information"][rows]

    def rows(self, spec: FeatureSpec, batch: Batch[Tensor]) -> Tensor:
        """Each candidate's, (B,)."""
        if _has_id(spec):
            return id_rows(spec, batch)
        index = batch.item_index.long()
        factors = [pow(_BASE, slot, _PRIME) for slot in range(1, index.shape[1] + 1)]
        return (index * torch.tensor(factors, device=index.device)).sum(1) % _PRIME


def residuals(lesson: Lesson) -> tuple[Tensor, Tensor]:
    """What each example adds to S and to I, (B,) each."""
    p = torch.sigmoid(lesson.at.logit.squeeze(1))
    weight = torch.ones_like(p) if lesson.weight is None else lesson.weight
    return weight * (lesson.label - p), weight * p * (1.0 - p)


def _has_id(spec: FeatureSpec) -> bool:
    return any(one.side == "item" and one.source == "id" for one in spec.fields)
