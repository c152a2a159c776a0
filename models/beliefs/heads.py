"""Heads: K last layers on the click model's last hidden layer, each trained on its own random part of the examples.

References:
    [1] Guo et al. 2020, "Deep Bayesian Bandits: Exploring in Online Personalized Recommendations", RecSys,
        arXiv:2008.00727.
    [2] Osband, Blundell, Pritzel, Van Roy 2016, "Deep Exploration via Bootstrapped DQN", NeurIPS, arXiv:1602.04621.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.beliefs.belief import Belief, Lesson, State
from models.beliefs.members import weighted_loss
from models.networks.click import ClickNetwork, Params


@dataclass(frozen=True, kw_only=True)
class Heads(Belief):
    """The trunk is the click model's, and learns nothing from them.

    Args:
        count: K.
        share: with which probability a head learns an example [2].
    """

    count: int
    share: float
    name: str = "heads"

    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        units, ctr = network.config.hidden[-1], network.config.initial_ctr
        weight = torch.randn(self.count, units, generator=generator) / math.sqrt(units)
        return State(trained={"weight": weight, "bias": torch.full((self.count,), math.log(ctr / (1.0 - ctr)))})

    def loss(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> Tensor:
        logits = self.logits(state, lesson.at.hidden[-1])
        learned = torch.from_numpy((generator.random(logits.shape) < self.share).astype(np.float32))
        return weighted_loss(logits, learned * lesson.label, learned * (1.0 - lesson.label))

    def logits(self, state: Params, hidden: Tensor) -> Tensor:
        """(K, B) from the last hidden layer (B, H)."""
        return torch.addmm(state["bias"][:, None], state["weight"], hidden.T)
