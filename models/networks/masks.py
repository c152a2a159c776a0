"""Masks: of dropout in training, and the random input of methods that learn from it what the model is unsure of."""

import numpy as np
import torch
from torch import Tensor

from models.networks.click import ClickNetwork, Dropout, NetworkConfig
from models.types import NoiseInput, Scope


def mask_input(network: ClickNetwork, *, dropout: Dropout, draws: int, scope: Scope, rate: float) -> NoiseInput:
    """`draws` masks over the hidden units that `dropout` covers."""
    hidden = network.config.hidden
    width = sum(hidden) if dropout == "full" else hidden[-1]
    return NoiseInput(name="masks", distribution="dropout", scope=scope, draws=draws, width=width, rate=rate)


def training_masks(config: NetworkConfig, share: slice, rows: int, *, generator: np.random.Generator) -> Tensor:
    """(1, N, U): a mask of its own for each of these N examples among so many."""
    rate, units = config.dropout, sum(config.hidden)
    # So many are dropped, and any of them: the same as to decide for each, and far fewer draws. Those of all examples
    # cost less than what it takes to begin anew for ours.
    count = generator.binomial(rows * units, rate)
    dropped = generator.choice(rows * units, count, replace=False, shuffle=False)
    ours = dropped[(dropped >= share.start * units) & (dropped < share.stop * units)] - share.start * units
    masks = torch.full((1, share.stop - share.start, units), 1.0 / (1.0 - rate))
    masks.view(-1).index_fill_(0, torch.from_numpy(ours), 0.0)
    return masks
