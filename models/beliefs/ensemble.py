"""Ensemble: K click models that differ in where they began, and all learn every example once.

References:
    [1] Lakshminarayanan, Pritzel, Blundell 2017, "Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles", NeurIPS, arXiv:1612.01474.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.beliefs.belief import Belief, Lesson, State
from models.beliefs.members import Members, Tables, weighted_loss
from models.networks.click import ClickNetwork, Params


@dataclass(frozen=True, kw_only=True)
class Ensemble(Belief):
    """See `Members`."""

    members: int
    tables: Tables
    name: str = "ensemble"

    @property
    def shape(self) -> Members:
        return Members(count=self.members, tables=self.tables)

    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        return State(trained=self.shape.init(network, generator))

    def loss(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> Tensor:
        logits = self.shape.logits(network, click, state, lesson.batch, lesson.context_row)
        return weighted_loss(logits, lesson.label, 1.0 - lesson.label)
