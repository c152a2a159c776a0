"""Learner: labelled examples become an optimiser step. No I/O, no clock, no hidden randomness."""

from collections.abc import Mapping

import numpy as np
import torch

from models.networks.click import ClickNetwork, Params, tensors
from models.noise import combine
from models.types import Array, Batch

#: What torch.optim.Adam keeps of each parameter.
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


class Learner:
    """Owns the parameters and the optimiser.

    The dropout masks of a step come from (seed, step) alone, so a restored learner goes on with the same bits.

    Args:
        network: shapes.
        learning_rate: of Adam (betas 0.9 and 0.999).
        seed: of the initial parameters and of every step's masks.
    """

    def __init__(self, network: ClickNetwork, *, learning_rate: float, seed: int) -> None:
        self.network = network
        self.seed = seed
        self.step = 0
        self.params: Params = network.init(torch.Generator().manual_seed(seed))
        for value in self.params.values():
            value.requires_grad_()
        self._optimizer = torch.optim.Adam(self.params.values(), lr=learning_rate, fused=True)

    def predict(self, batch: Batch) -> Array:
        """Click probabilities (B,) float32, without dropout."""
        with torch.inference_mode():
            return torch.sigmoid(self.network.logit(self.params, tensors(batch))).numpy()

    def learn(self, batch: Batch, label: Array) -> float:
        """One step on B examples (C = B rows of context), label (B,) in {0, 1}. Returns the click loss before it."""
        masks = self._masks(len(label))
        click, gate = self.network.loss(
            self.params, tensors(batch), masks, torch.from_numpy(np.asarray(label, dtype=np.float32))
        )
        self._optimizer.zero_grad(set_to_none=True)
        (click + gate).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self.step += 1
        return click.item()

    def weights(self) -> dict[str, Array]:
        """Copies of the parameters by name."""
        return {name: value.detach().numpy().copy() for name, value in self.params.items()}

    def prepared(self) -> dict[str, Array]:
        """`weights`, and what ranking derives from them (`ClickNetwork.prepare`)."""
        weights = self.weights()
        tensors = self.network.prepare({name: torch.from_numpy(value) for name, value in weights.items()})
        return {name: value.numpy() for name, value in tensors.items()}

    def state(self) -> dict[str, Array]:
        """Copies of the optimiser's moments, named "adam.<moment>.<parameter>"; empty before the first step."""
        return {
            f"adam.{moment}.{name}": tensor.numpy().copy()
            for name, value in self.params.items()
            for moment, tensor in self._optimizer.state[value].items()
        }

    def restore(self, weights: Mapping[str, Array], state: Mapping[str, Array], step: int) -> None:
        """Continues where `weights`, `state` and `step` were taken.

        Raises:
            ValueError: names or shapes are not this network's.
        """
        with torch.no_grad():
            for name, value in self.params.items():
                if name not in weights or weights[name].shape != tuple(value.shape):
                    raise ValueError(f"parameter {name}: expected shape {tuple(value.shape)}")
                value.copy_(torch.from_numpy(weights[name].copy()))
                self._optimizer.state[value] = {
                    moment: torch.from_numpy(state[f"adam.{moment}.{name}"].copy())
                    for moment in _MOMENTS
                    if f"adam.{moment}.{name}" in state
                }
        self.step = step

    def _masks(self, rows: int) -> torch.Tensor:
        """(1, B, U): a mask of its own for every example."""
        rate = self.network.config.dropout
        # torch's CPU generator reads only 32 bits of its seed, so seed and step are mixed into those.
        key = combine(np.array([self.seed], dtype=np.uint64), np.uint64(self.step))
        generator = torch.Generator().manual_seed(int(key[0]) & 0xFFFFFFFF)
        keep = torch.rand(1, rows, sum(self.network.config.hidden), generator=generator) >= rate
        return keep.to(torch.float32) / (1.0 - rate)
