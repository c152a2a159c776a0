"""Residuals: what the click model did not foresee of each item, by its row in the table of its ids.

    S = sum of y - p,  I = sum of p (1 - p)

over the item's examples, p what the click model said of each before it learned it. They are the slope and the curvature
at 0 of the log likelihood of a number that the model's log odds lack.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.beliefs.belief import Belief, Lesson, State
from models.beliefs.counts import id_column, id_rows
from models.networks.click import ClickNetwork, Params
from models.types import Batch


@dataclass(frozen=True, kw_only=True)
class Residuals(Belief):
    """Sums over all that this lane learned."""

    name: str = "residuals"

    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        rows = id_column(network.spec).field.rows
        return State(kept={name: torch.zeros(rows) for name in ("residual", "information")})

    def note(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> None:
        rows, p = id_rows(network.spec, lesson.batch), torch.sigmoid(lesson.at.logit.squeeze(1))
        state["residual"].index_add_(0, rows, lesson.label - p)
        state["information"].index_add_(0, rows, p * (1.0 - p))

    def of(self, network: ClickNetwork, state: Params, batch: Batch[Tensor]) -> tuple[Tensor, Tensor]:
        """S and I of the candidates, (B,) each."""
        rows = id_rows(network.spec, batch)
        return state["residual"][rows], state["information"][rows]
