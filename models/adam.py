"""Adam of dense gradients, by torch's fused kernel.

torch.optim.Adam calls the same kernel, and imports all of torch.compile with it: 1.7 s of every start, and 70 MiB.

References:
    [1] Kingma, Ba 2015, "Adam: A Method for Stochastic Optimization", ICLR, arXiv:1412.6980
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim.adam import adam

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8  # [1]
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # torch's names for what [1] keeps of each parameter


class FusedAdam:
    """[1], in place.

    Args:
        groups: (parameters by name, their learning rate).

    Attributes:
        moments: parameter -> MOMENTS of it: (), and twice its shape; of those that have had a gradient.
    """

    def __init__(self, *groups: tuple[Mapping[str, Tensor], float]) -> None:
        self._groups = groups
        self.moments: dict[str, tuple[Tensor, ...]] = {}

    def step(self) -> None:
        """Takes one step along the gradients of those that have one, and the gradients away."""
        with torch.no_grad():
            for params, learning_rate in self._groups:
                self._move({name: value for name, value in params.items() if value.grad is not None}, learning_rate)

    def _move(self, params: Mapping[str, Tensor], learning_rate: float) -> None:
        for name, value in params.items():
            if name not in self.moments:
                self.moments[name] = torch.zeros(()), torch.zeros_like(value), torch.zeros_like(value)
        steps, means, squares = ([self.moments[name][place] for name in params] for place in range(len(MOMENTS)))
        adam(
            list(params.values()),
            [value.grad for value in params.values() if value.grad is not None],
            means,
            squares,
            [],
            steps,
            fused=True,
            amsgrad=False,
            beta1=BETA_1,
            beta2=BETA_2,
            lr=learning_rate,
            weight_decay=0.0,
            eps=EPSILON,
            maximize=False,
        )
        for value in params.values():
            value.grad = None
