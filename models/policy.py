"""Policy: a network, its parameters and a strategy, in torch. Offline evaluation and the torch engine rank with it."""

from dataclasses import dataclass

import numpy as np
import torch

from models.beliefs.belief import prepare
from models.networks.click import ClickNetwork, Params, tensors
from models.registry import Strategy
from models.types import Array, Batch, Inputs, Noise, NoiseInput, Scores


@dataclass(frozen=True)
class Policy:
    """Ranks with fixed parameters."""

    network: ClickNetwork
    params: Params
    strategy: Strategy

    @property
    def noise(self) -> tuple[NoiseInput, ...]:
        """The random inputs to draw for `scores`."""
        return self.strategy.exploration.noise(self.network)

    def scores(self, batch: Batch, noise: Noise, lambda_: float, impressions: Array) -> Scores:
        """numpy in, numpy out; shapes as in `models.types.Inputs`."""
        device = next(iter(self.params.values())).device
        inputs = Inputs(
            tensors(batch, device),
            {name: torch.from_numpy(array).to(device) for name, array in noise.items()},
            torch.tensor(lambda_, dtype=torch.float32, device=device),
            torch.from_numpy(np.asarray(impressions, dtype=np.int64)).to(device),
        )
        with torch.inference_mode():
            # Here, because a learner may move the parameters.
            params = prepare(self.network, self.strategy.beliefs, self.params)
            scores = self.strategy.exploration.scores(self.network, params, inputs)
        return Scores(*(one.numpy(force=True) for one in scores))
