"""Learner: labelled examples become an optimiser step. No I/O, no clock, no hidden randomness."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from models.beliefs.belief import Belief, Lesson, prepare
from models.memory import Memory
from models.networks.click import ClickNetwork, Params, tensors
from models.optimizers import OPTIMIZERS
from models.peers import Peers, Rows, add_up, rows_read
from models.touched import Touched
from models.types import Array, Batch


class Learner:
    """Owns the parameters and the optimiser, and what beliefs learn beside them.

    The dropout masks of a step come from (seed, step) alone, so a restored learner goes on with the same bits.

    Args:
        network: shapes.
        learning_rate: of the optimiser.
        seed: of the initial parameters and of every step's masks.
        optimizer: key of OPTIMIZERS.
        options: of that optimiser of the click model, besides the learning rate.
        beliefs: what the lane's exploration methods learn beside the click model (`models.registry.beliefs`).
        negative_rate: share of the unclicked examples that are learned from, all of which `learn` is given. Predictions
            are as if it were 1.

    Attributes:
        params: the click model's and the beliefs', changed in place by every step.
    """

    def __init__(
        self,
        network: ClickNetwork,
        *,
        learning_rate: float,
        seed: int,
        optimizer: str = "adam",
        options: Mapping[str, float] = MappingProxyType({}),
        beliefs: Sequence[Belief] = (),
        negative_rate: float = 1.0,
    ) -> None:
        if beliefs and negative_rate < 1.0:
            names = ", ".join(one.name for one in beliefs)
            raise ValueError(f"negative_rate must be 1 for {names}: they count every example")
        self.network = network
        self.seed = seed
        self.step = 0
        self._beliefs = tuple(beliefs)
        self._memories = [
            Memory(one, network, learning_rate=learning_rate, optimizer=optimizer, seed=seed) for one in beliefs
        ]
        self._click: Params = network.init(torch.Generator().manual_seed(seed))
        for value in self._click.values():
            value.requires_grad_()
        self.params = self._click | {name: value for one in self._memories for name, value in one.params.items()}
        self._offset = -math.log(negative_rate)
        self._optimizer = OPTIMIZERS[optimizer](self._click, learning_rate=learning_rate, **options)
        self._touched = None if self._optimizer.moves_unread else Touched(self._click)

    def predict(self, batch: Batch) -> Array:
        """Click probabilities (B,) float32, without dropout."""
        with torch.inference_mode():
            return torch.sigmoid(self.network.logit(self.params, tensors(batch))).numpy()

    def learn(
        self, batch: Batch, label: Array, context_row: Array | None = None, *, peers: Peers | None = None
    ) -> Array:
        """One step on B examples.

        Args:
            batch: with C rows of context.
            label: (B,) in {0, 1}.
            context_row: (B,) int64, each example's row of context; None where C = B.
            peers: that are given the same at the same time, and end with the same bits.

        Returns:
            What was predicted before the step, without dropout: click probabilities (B,) float32.
        """
        if self._memories:
            self._teach(batch, label, context_row)
        rows = len(label)
        all_rows = Rows(
            tensors(batch),
            torch.from_numpy(np.asarray(label, dtype=np.float32)),
            None if context_row is None else torch.from_numpy(context_row),
        )
        share = peers.share(rows) if peers else slice(0, rows)
        p = torch.zeros(rows)
        if share.stop > share.start:
            p[share] = self._backward(all_rows.part(share) if peers else all_rows, rows, share)
        if peers:
            add_up(self._click, rows_read(self.network.spec, all_rows.batch), p, peers)
        if self._touched:
            self._touched.mark(self._click)
        self._optimizer.step()
        self.step += 1
        return p.numpy()

    def weights(self) -> dict[str, Array]:
        """Copies of the parameters by name."""
        return {name: value.detach().numpy().copy() for name, value in self.params.items()}

    def prepared(self) -> dict[str, Array]:
        """The parameters by name, and what ranking derives from them (`models.beliefs.belief.prepare`).

        No copies: the next step changes them.
        """
        params = {name: value.detach() for name, value in self.params.items()}
        return {name: value.numpy() for name, value in prepare(self.network, self._beliefs, params).items()}

    def touched(self) -> dict[str, Array] | None:
        """The rows of each embedding table that moved since `settle`: table -> (N,) int32, ascending.

        None where the optimiser moves them all.
        """
        return self._touched.rows() if self._touched else None

    def settle(self) -> None:
        """From here on `touched` counts."""
        if self._touched:
            self._touched.clear()

    def state(self) -> dict[str, Array]:
        """Copies of what the next step needs besides `weights`, by name; of the optimisers nothing before the first."""
        beliefs = {name: value for one in self._memories for name, value in one.state().items()}
        return self._optimizer.state() | beliefs

    def restore(self, weights: Mapping[str, Array], state: Mapping[str, Array], step: int) -> None:
        """Continues where `weights`, `state` and `step` were taken. A belief that they do not have begins there.

        Raises:
            ValueError: they are not of this network, or of another optimiser, or of a belief with other options.
        """
        with torch.no_grad():
            for name, value in self._click.items():
                if name not in weights or weights[name].shape != tuple(value.shape):
                    raise ValueError(f"parameter {name}: expected shape {tuple(value.shape)}")
                value.copy_(torch.from_numpy(weights[name].copy()))
        if step:
            self._optimizer.restore(state)
        for one in self._memories:
            one.restore(weights, state)
        self.step = step
        self.settle()

    def _teach(self, batch: Batch, label: Array, context_row: Array | None) -> None:
        """Has the beliefs learn from B examples, as the click model sees them before its own step."""
        click = {name: value.detach() for name, value in self._click.items()}
        rows = None if context_row is None else torch.from_numpy(context_row)
        encoded = tensors(batch)
        with torch.no_grad():
            a = self.network.first(click, *self.network.embed(click, encoded), rows)
            at = self.network.forward(click, a)
        lesson = Lesson(encoded, torch.from_numpy(np.asarray(label, dtype=np.float32)), rows, at)
        for one in self._memories:
            one.learn(click, lesson, self.step)

    def _backward(self, ours: Rows, rows: int, share: slice) -> Tensor:
        """The gradient of the mean loss over so many rows, as far as ours go. Returns what is predicted for these."""
        masks = self._masks(rows)[:, share]
        loss = self.network.loss(self._click, ours.batch, masks, ours.label, ours.context_row, offset=self._offset)
        ((loss.click + loss.gate) * (len(ours.label) / rows)).backward()  # type: ignore[no-untyped-call]
        return loss.p_click

    def _masks(self, rows: int) -> torch.Tensor:
        """(1, B, U): a mask of its own for every example."""
        rate = self.network.config.dropout
        masks = torch.full((1, rows, sum(self.network.config.hidden)), 1.0 / (1.0 - rate))
        generator = np.random.default_rng([self.seed, self.step])
        # So many are dropped, and any of them: the same as to decide for each, and far fewer draws.
        dropped = generator.choice(masks.numel(), generator.binomial(masks.numel(), rate), replace=False, shuffle=False)
        masks.view(-1)[torch.from_numpy(dropped)] = 0.0
        return masks
