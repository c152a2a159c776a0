"""Memory: one belief as it is learned, beside the click model."""

from collections.abc import Mapping

import numpy as np
import torch

from models.beliefs.belief import Belief, Lesson, begin, named
from models.networks.click import ClickNetwork, Params
from models.noise import seed_of
from models.optimizers import OPTIMIZERS
from models.types import Array


class Memory:
    """Owns a belief's state and its optimiser.

    Args:
        belief: what is learned.
        network: of the click model.
        learning_rate, optimizer: as of the learner, but an optimiser of its own.
        seed: of the initial state and of every step's randomness.
    """

    def __init__(
        self, belief: Belief, network: ClickNetwork, *, learning_rate: float, optimizer: str, seed: int
    ) -> None:
        self._belief, self._network, self._seed = belief, network, seed
        state = begin(belief, network, seed)
        for value in state.trained.values():
            value.requires_grad_()
        self._state = state.trained | state.kept | state.private
        #: What a ranking may read, under the names of the parameters; changed in place by every step.
        self.params = named(belief, state.trained | state.kept)
        self._private = named(belief, state.private)
        self._optimizer = OPTIMIZERS[optimizer](state.trained, learning_rate=learning_rate) if state.trained else None

    def learn(self, click: Params, lesson: Lesson, step: int) -> None:
        """Takes note of a lesson, and one step.

        Args:
            click: the click model's parameters, without gradients.
            lesson: what there is to learn.
            step: its number.
        """
        generator = np.random.default_rng([self._seed, step, seed_of(self._belief.name)])
        with torch.no_grad():
            self._belief.note(self._network, click, self._state, lesson, generator)
        loss = self._belief.loss(self._network, click, self._state, lesson, generator)
        if loss is not None and self._optimizer is not None:
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()

    def state(self) -> dict[str, Array]:
        """Copies of what stays with the trainer, by name."""
        moments = self._optimizer.state() if self._optimizer else {}
        private = {name: value.numpy().copy() for name, value in self._private.items()}
        return private | {f"{self._belief.name}.{name}": value for name, value in moments.items()}

    def restore(self, weights: Mapping[str, Array], state: Mapping[str, Array]) -> None:
        """Continues where `weights` and `state` were taken; begins there where they know nothing of it.

        Raises:
            ValueError: they are of other options, or of another optimiser.
        """
        prefix = f"{self._belief.name}."
        if not any(name.startswith(prefix) for name in (*weights, *state)):
            return
        with torch.no_grad():
            for values, given in ((self.params, weights), (self._private, state)):
                for name, value in values.items():
                    if name not in given or given[name].shape != tuple(value.shape):
                        raise ValueError(f"{name}: expected shape {tuple(value.shape)}; its method had other options")
                    value.copy_(torch.from_numpy(given[name].copy()))
        others = {name: value for name, value in state.items() if name not in self._private}
        moments = {name.removeprefix(prefix): value for name, value in others.items() if name.startswith(prefix)}
        if moments and self._optimizer:  # none before its first step, which may be long after the lane's
            self._optimizer.restore(moments)
