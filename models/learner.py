"""Learner: labelled examples become an optimiser step. No I/O, no clock, no hidden randomness."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from models.beliefs.belief import Belief, ByRow, Lesson, prepare
from models.denormals import without_denormals
from models.division import Division
from models.gradients import give, rows_read, taken
from models.memory import Memory
from models.networks.click import ClickNetwork, Params, tensors
from models.networks.embedding import is_table
from models.networks.masks import training_masks
from models.optimizers import OPTIMIZERS
from models.peers import Peers, Rows, shares
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
        peers: that take every step with us: they are made alike, given the same batches at the same time, and what
            they have in common has the same bits. None: we learn alone.
        parts: of a batch, whose gradients are added up one after the other (`models.gradients`): the weights have then
            the same bits as those of so many peers, each of which has one part. With peers, their number.

    Attributes:
        params: the click model's and the beliefs', changed in place by every step. With peers, see `level`.
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
        peers: Peers | None = None,
        parts: int | None = None,
    ) -> None:
        of_peers = peers.size if peers else parts or 1
        if parts not in (None, of_peers) or of_peers < 1:
            raise ValueError(f"a gradient has as many parts as there are ranks, {of_peers}, not {parts}")
        names = ", ".join(one.name for one in beliefs if not one.weighs)
        if names and negative_rate < 1.0:
            raise ValueError(f"negative_rate must be 1 for {names}: they count every example")
        self.network, self.seed, self.step = network, seed, 0
        self._beliefs = tuple(beliefs)
        self._memories = [
            Memory(one, network, learning_rate=learning_rate, optimizer=optimizer, seed=seed) for one in beliefs
        ]
        self._click: Params = network.init(torch.Generator().manual_seed(seed))
        for value in self._click.values():
            value.requires_grad_()
        self.params = self._click | {name: value for one in self._memories for name, value in one.params.items()}
        self._negative_rate = negative_rate
        self._parts = of_peers
        unread = OPTIMIZERS[optimizer].moves_unread
        self._division = Division(network.spec, self._click, peers, moves_unread=unread) if peers else None
        moved = self._division.owned if self._division else self._click
        self._optimizer = OPTIMIZERS[optimizer](moved, learning_rate=learning_rate, **options)
        self._elsewhere: dict[str, Array] | None = {}  # of the optimisers of peers; None where they have gone on
        self._touched = None if unread else Touched(self._by_row())

    def predict(self, batch: Batch) -> Array:
        """Click probabilities (B,) float32, without dropout."""
        with torch.inference_mode():
            return torch.sigmoid(self.network.logit(self.params, tensors(batch))).numpy()

    def learn(self, batch: Batch, label: Array, context_row: Array | None = None) -> Array:
        """One step on B examples.

        Args:
            batch: with C rows of context, each of which some example has.
            label: (B,) in {0, 1}.
            context_row: (B,) int64, ascending, each example's row of context; None where C = B.

        Returns:
            What was predicted before the step, without dropout: click probabilities (B,) float32.
        """
        rows = Rows(
            tensors(batch),
            torch.from_numpy(np.asarray(label, dtype=np.float32)),
            None if context_row is None else torch.from_numpy(context_row),
        )
        with without_denormals():
            p = self._with_peers(rows, self._division) if self._division else self._alone(rows)
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
        """The rows of each embedding table, and of what beliefs keep by row, that moved since `settle`: name -> (N,)
        int32, ascending.

        None where the optimiser moves them all. With peers, up to the last `level`.
        """
        return self._touched.rows() if self._touched else None

    def settle(self) -> None:
        """From here on `touched` counts."""
        if self._touched:
            self._touched.clear()

    def state(self) -> dict[str, Array]:
        """Copies of what the next step needs besides `weights`, by name; of the optimisers nothing before the first.

        With peers, of the first alone, which has been told their shares: `complete`.
        """
        assert self._elsewhere is not None, "peers have gone on since: collect first"
        ours = self._optimizer.state()
        ours |= {name: np.concatenate([ours[name], theirs]) for name, theirs in self._elsewhere.items()}
        return ours | {name: value for one in self._memories for name, value in one.state().items()}

    def level(self) -> None:
        """Brings `params` together, with all peers: until then each has rows of tables as it last read them."""
        if self._division:
            moved = self._division.level()
            if self._touched:
                self._touched.mark([moved])

    def share(self) -> dict[str, Array]:
        """Of the state what no peer has: copies, by name."""
        return {name: value for name, value in self._optimizer.state().items() if is_table(name) and value.ndim}

    def complete(self, shares: Sequence[Mapping[str, Array]]) -> None:
        """What `share` is on the peers after us, in their order. Until the next step."""
        names = shares[0] if shares else {}
        self._elsewhere = {name: np.concatenate([one[name] for one in shares]) for name in names}

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
        self._elsewhere = {}
        if step:
            ours, theirs = self._division.cut(state) if self._division else (state, {})
            self._optimizer.restore(ours)
            self._elsewhere = {name: theirs[name] for name in self.share() if name in theirs}
        for one in self._memories:
            one.restore(weights, state)
        self.step = step
        self.settle()

    def _alone(self, rows: Rows) -> Tensor:
        """Leaves gradients. Returns what is predicted, (B,)."""
        self._teach(rows)
        count = len(rows.label)
        masks = self._masks(slice(0, count), count)
        p = self._backward(rows, masks, count) if self._parts == 1 else self._in_parts(rows, masks)
        if self._touched:
            tables = {name: value.grad for name, value in self._click.items() if is_table(name)}
            self._touched.mark([{name: one._indices()[0] for name, one in tables.items() if one is not None}])
        return p

    def _in_parts(self, rows: Rows, masks: Tensor) -> Tensor:
        """The same as so many peers would."""
        found, gradients = [], []
        for cut in shares(len(rows.label), self._parts):
            part = rows.part(cut)
            found.append(self._backward(part, masks[:, cut], len(rows.label)))
            gradients.append(taken(self._click, rows_read(self.network.spec, part.batch)))
        give(self._click, gradients)
        return torch.cat(found)

    def _with_peers(self, rows: Rows, division: Division) -> Tensor:
        """The same: the gradients that all have come to together."""
        self._elsewhere = None
        cuts = shares(len(rows.label), self._parts)
        parts = [rows.part(cut) for cut in cuts]
        if any(one.recalls for one in self._beliefs):
            self.level()
        # Beliefs learn from all rows.
        arrived = division.fetch([rows.batch if self._memories else part.batch for part in parts])
        masks = self._masks(cuts[division.peers.rank], len(rows.label))  # while the rows travel
        arrived()
        self._teach(rows)
        return division.add_up(self._backward(parts[division.peers.rank], masks, len(rows.label)), cuts)

    def _teach(self, rows: Rows) -> None:
        """Has the beliefs learn from B examples, as the click model sees them before its own step."""
        if not self._memories:
            return
        click = {name: value.detach() for name, value in self._click.items()}
        with torch.no_grad():
            a = self.network.first(click, *self.network.embed(click, rows.batch), rows.context_row)
            at = self.network.forward(click, a)
        weight = torch.where(rows.label > 0.0, 1.0, 1.0 / self._negative_rate) if self._negative_rate < 1.0 else None
        lesson = Lesson(rows.batch, rows.label, rows.context_row, at, weight)
        for belief, one in zip(self._beliefs, self._memories, strict=True):
            one.learn(click, lesson, self.step)
            if self._touched and isinstance(belief, ByRow):
                self._touched.mark([dict.fromkeys(one.params, belief.rows(self.network.spec, rows.batch))])

    def _by_row(self) -> Params:
        """The parameters of which a step moves some rows."""
        tables = {name: value.detach() for name, value in self._click.items() if is_table(name)}
        for belief, one in zip(self._beliefs, self._memories, strict=True):
            tables |= one.params if isinstance(belief, ByRow) else {}
        return tables

    def _backward(self, ours: Rows, masks: Tensor, rows: int) -> Tensor:
        """The gradient of the mean loss over so many rows, as far as ours go. Returns what is predicted for these."""
        if not len(ours.label):
            return ours.label
        offset = -math.log(self._negative_rate)
        loss = self.network.loss(self._click, ours.batch, masks, ours.label, ours.context_row, offset=offset)
        ((loss.click + loss.gate) * (len(ours.label) / rows)).backward()  # type: ignore[no-untyped-call]
        return loss.p_click

    def _masks(self, share: slice, rows: int) -> Tensor:
        return training_masks(self.network.config, share, rows, generator=np.random.default_rng([self.seed, self.step]))
