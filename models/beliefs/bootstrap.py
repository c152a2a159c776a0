"""Bootstrap: members that differ in which examples they learn, and in which fake ones.

References:
    [1] Pan et al. 2021, "GuideBoot: Guided Bootstrap for Deep Contextual Bandits in Online Advertising", WWW,
        arXiv:2107.08383; equation numbers are its.
    [2] Tang et al. 2015, "Personalized Recommendation via Parameter-Free Contextual Bandits", SIGIR: Poisson(1).
    [3] Kveton et al. 2019, "Garbage In, Reward Out: Bootstrapping Exploration in Multi-Armed Bandits", ICML,
        arXiv:1811.05154: Giro.
    [4] Owen, Eckles 2012, "Bootstrapping data arrays of arbitrary order", Ann. Appl. Statist.: double or nothing.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.beliefs import history, rows
from models.beliefs.belief import Belief, Lesson, State
from models.beliefs.counts import id_column
from models.beliefs.members import Members, Tables, weighted_loss
from models.networks.click import ClickNetwork, Params
from models.types import Array

#: How often a member learns an example: once, Poisson(1) times [2], or twice or not at all [4].
Resampling = Literal["none", "poisson", "double_or_nothing"]
#: Whose impressions tell how familiar an example is: the item's, eq. (6), or those of each value in it, eq. (7).
Guidance = Literal["item", "fields"]


class Weights(NamedTuple):
    """How often each example counts for each member, (B, K) float32. A lot brings a fake where it is less than g."""

    real: Tensor
    unclicked_lot: Tensor  # uniform in [0, 1)
    clicked_lot: Tensor
    pseudo_unclicked: Tensor
    pseudo_clicked: Tensor


@dataclass(frozen=True, kw_only=True)
class Bootstrap(Belief):
    """Members and their examples.

    Args:
        members, tables: see `Members`.
        resampling: of the real examples.
        alpha: of the fakes: each real example brings a clicked and an unclicked one, each with probability
            g = min(1, alpha / c), eq. (5). 0: there are none.
        guidance: c, how familiar the example is.
        pseudo: Giro's a: so many pairs of a clicked and an unclicked example enter with each, in the mean.
        history: examples kept, to be drawn from again and again; 0: each is learned once, as it comes.
        replayed: examples drawn a step from what is kept.
    """

    name: str
    members: int
    tables: Tables
    resampling: Resampling
    alpha: float = 0.0
    guidance: Guidance = "item"
    pseudo: float = 0.0
    history: int = 0
    replayed: int = 256

    @property
    def shape(self) -> Members:
        return Members(count=self.members, tables=self.tables)

    @property
    def recalls(self) -> bool:
        return self.history > 0 and self.tables == "shared"

    def init(self, network: ClickNetwork, generator: torch.Generator) -> State:
        private: Params = {}
        if self.alpha:
            if self.guidance == "item":
                id_column(network.spec)  # it must have one
            private |= rows.zeros(network, "shown", dtype=torch.int64)
        if self.history:
            private |= history.begin(network, self.history, 1 + self.members * len(Weights._fields))
        return State(trained=self.shape.init(network, generator), private=private)

    def note(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> None:
        if self.alpha:
            shown = rows.by_table(state, "shown")
            for one in rows.of_examples(network, lesson):
                present = (one.weight != 0).long()
                shown[one.table.name].index_add_(0, one.row.flatten(), present.flatten())
        if self.history:
            drawn = self.draw(len(lesson.label), generator)
            history.append(state, lesson, torch.cat([lesson.label[:, None], *drawn], dim=1))

    def loss(
        self, network: ClickNetwork, click: Params, state: Params, lesson: Lesson, generator: np.random.Generator
    ) -> Tensor:
        if self.history:
            place = generator.integers(history.size(state), size=self.replayed)
            batch, own = history.take(state, torch.from_numpy(place))
            label, *drawn = torch.split(own, [1, *[self.members] * len(Weights._fields)], dim=1)
            lesson, weights = Lesson(batch, label.squeeze(1), None, lesson.at), Weights(*drawn)
        else:
            weights = self.draw(len(lesson.label), generator)
        clicked, unclicked = counted(weights, lesson.label, self.guide(network, state, lesson))
        logits = self.shape.logits(network, click, state, lesson.batch, lesson.context_row)
        return weighted_loss(logits, clicked.T, unclicked.T)

    def draw(self, count: int, generator: np.random.Generator) -> Weights:
        """Of so many new examples."""
        shape = (count, self.members)
        pairs = np.floor(self.pseudo + generator.random((count, 1)))
        drawn = (
            _resampled(self.resampling, shape, generator),
            generator.random(shape),
            generator.random(shape),
            generator.poisson(np.broadcast_to(pairs, shape)),
            generator.poisson(np.broadcast_to(pairs, shape)),
        )
        return Weights(*(torch.from_numpy(np.asarray(one, dtype=np.float32)) for one in drawn))

    def guide(self, network: ClickNetwork, state: Params, lesson: Lesson) -> Tensor:
        """g of each example, (B,): the probability of each of its fakes."""
        if not self.alpha:
            return torch.zeros_like(lesson.label)
        shown = rows.by_table(state, "shown")
        read = rows.of_examples(network, lesson)
        if self.guidance == "item":  # eq. (6)
            ids = id_column(network.spec)
            read = [one for one in read if one.column == ids]
        values = [one for one in read if one.column.field.kind != "numeric"]
        inverse = torch.zeros_like(lesson.label)
        for one in values:  # eq. (7)
            inverse = inverse + ((one.weight != 0) / shown[one.table.name][one.row].clamp(min=1)).sum(1)
        return torch.clamp(self.alpha * inverse, max=1.0)  # eq. (5)


def counted(weights: Weights, label: Tensor, guide: Tensor) -> tuple[Tensor, Tensor]:
    """How often each example counts as clicked, and how often as not, for each member, (B, K) each.

    Args:
        label, guide: (B,).
    """
    y, g = label[:, None], guide[:, None]
    clicked = weights.real * (y + (weights.clicked_lot < g)) + weights.pseudo_clicked
    unclicked = weights.real * (1.0 - y + (weights.unclicked_lot < g)) + weights.pseudo_unclicked
    return clicked, unclicked


def _resampled(resampling: Resampling, shape: tuple[int, int], generator: np.random.Generator) -> Array:
    if resampling == "poisson":
        return generator.poisson(1.0, shape)
    if resampling == "double_or_nothing":
        return 2 * generator.integers(2, size=shape)
    return np.ones(shape)
