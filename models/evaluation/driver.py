"""A strategy and its learner, driven over visits: picks for many of them at once, and learns from what was shown.

Replay and the closed loop over a simulated world are this driver and a source of visits. Between two updates the
parameters stand still, so all visits of a partition can be scored in a few large batches.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from models.budget import Budget
from models.evaluation.items import Items
from models.learner import Learner
from models.noise import combine, draw
from models.policy import Policy
from models.registry import Strategy
from models.slate import tie_break
from models.types import Array, Batch, Noise

_BLOCK_ROWS = 5_000  # candidates scored at a time: the masks of UCB for a whole partition would fill the memory


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How a strategy lives through its visits.

    Args:
        warm_up: visits that are learned as they were displayed, at random, before the evaluation begins.
        update_every: visits of a partition; the strategy learns after each.
        batch_size: most examples of an optimiser step.
        window: None to learn every example once, as a stream is. Else learning starts afresh after each partition, one
            epoch over the newest so many examples: the protocol of [1], whose window is 80,000.

    References:
        [1] "Pluggable Deep Thompson Sampling", SDM 2023, supplement, Algorithm 5.
    """

    warm_up: int = 80_000
    update_every: int = 1_000
    batch_size: int = 64
    window: int | None = None


class Visits(NamedTuple):
    """V visits laid flat: their B candidates one after the other."""

    context_index: Array  # (V, Kc) int32
    context_weight: Array  # (V, Kc) float32
    visit: Array  # (B,) int64, ascending: whose candidate
    item: Array  # (B,) int64, its number in `Items`

    @property
    def start(self) -> Array:
        """(V,) int64: the first row of each visit."""
        return np.searchsorted(self.visit, np.arange(len(self.context_index)))

    def cut(self, first: int, last: int) -> "Visits":
        """Visits first to last, last left out."""
        rows = slice(*np.searchsorted(self.visit, [first, last]))
        context = slice(first, last)
        return Visits(
            self.context_index[context], self.context_weight[context], self.visit[rows] - first, self.item[rows]
        )


class Examples(NamedTuple):
    """N displayed items and what came of them."""

    context_index: Array  # (N, Kc) int32
    context_weight: Array  # (N, Kc) float32
    item: Array  # (N,) int64
    click: Array  # (N,) float32 in {0, 1}

    def take(self, rows: Array) -> "Examples":
        return Examples(*(column[rows] for column in self))

    def join(self, later: "Examples") -> "Examples":
        return Examples(*(np.concatenate(pair) for pair in zip(self, later, strict=True)))


class Choices(NamedTuple):
    """What a strategy picked for V visits."""

    row: Array  # (V,) int64, of `Visits.item`
    p_click: Array  # (V,) float32, the model's prediction of the pick
    changed: Array  # (V,) bool: greedy would have picked another


class Driver:
    """All that changes while visits go by: the learner, the impression counts, the budget and the window.

    Args:
        strategy: to drive.
        make: a fresh learner, given the number of times that learning started afresh. Of the contexts of its spec only
            a multi-hot field at the end may have empty slots.
        items: catalogue that the visits refer to; it may grow.
        seed: of the strategy's noise.
        protocol: how to learn.

    Attributes:
        impressions: (N,) int64, how often each item was learned from.
    """

    def __init__(
        self, *, strategy: Strategy, make: Callable[[int], Learner], items: Items, seed: int, protocol: Protocol
    ) -> None:
        self.impressions = np.zeros(0, dtype=np.int64)
        self._strategy, self._make, self._items, self._protocol = strategy, make, items, protocol
        self._learner = make(0)
        self._budget = None if strategy.budget is None else Budget(strategy.budget, strategy.lambda_)
        self._seed = np.array([seed], dtype=np.uint64)
        self._asked = 0  # visits put to the strategy
        self._updates = 0  # times that it learned
        self._window: Examples | None = None
        self._stale = False  # the window holds what the learner has not seen

    @property
    def lambda_(self) -> float:
        """The exploration strength in use."""
        return self._strategy.lambda_ if self._budget is None else self._budget.lambda_

    def pick(self, visits: Visits) -> Choices:
        """One candidate for each visit. Every random number comes from the seed and the number of the visit; masks of
        the scope "version" from the seed and the number of updates."""
        self._refit()
        self._count_up_to(len(self._items))
        lambda_, total = self.lambda_, len(visits.context_index)
        step = max(1, _BLOCK_ROWS * total // max(len(visits.item), 1))
        parts = []
        for first in range(0, total, step):
            block = visits.cut(first, min(first + step, total))
            found = self._pick(block, lambda_)
            parts.append(found._replace(row=found.row + np.searchsorted(visits.visit, first)))
        return Choices(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def observe(self, changed: Array) -> None:
        """Tells the budget of the choices that were shown, (K,) of `Choices.changed`, before the next pick."""
        if self._budget is not None:
            self._budget.observe(int(changed.sum()), len(changed), self.lambda_)

    def learn(self, shown: Examples) -> None:
        """What was displayed, each once and in its order."""
        if not len(shown.click):
            return
        self._count_up_to(len(self._items))
        np.add.at(self.impressions, shown.item, 1)
        if self._protocol.window is None:
            self._fit(shown)
        else:
            kept = shown if self._window is None else self._window.join(shown)
            self._window = Examples(*(column[-self._protocol.window :] for column in kept))
            self._stale = True
        self._updates += 1

    def _refit(self) -> None:
        """Learns the window from the beginning, in an order of its own, if it changed."""
        if not self._stale or self._window is None:
            return
        self._learner = self._make(self._updates)
        generator = np.random.default_rng([int(self._seed[0]), self._updates])
        self._fit(self._window.take(generator.permutation(len(self._window.click))))
        self._stale = False

    def _fit(self, examples: Examples) -> None:
        count = len(examples.click)
        # Even shares, since Adam's step on a rest of one example would be as long as on a full batch.
        for rows in np.array_split(np.arange(count), -(-count // self._protocol.batch_size)):
            part = examples.take(rows)
            context = _used(part.context_index, part.context_weight)
            batch = Batch(*context, self._items.index[part.item], self._items.weight[part.item])
            self._learner.learn(batch, part.click)

    def _pick(self, visits: Visits, lambda_: float) -> Choices:
        count = len(visits.context_index)
        seed = combine(self._seed, np.arange(self._asked, self._asked + count, dtype=np.uint64))  # (V,)
        self._asked += count
        policy = Policy(self._learner.network, self._learner.params, self._strategy)
        index, weight = _used(visits.context_index, visits.context_weight)
        context = index[visits.visit], weight[visits.visit]
        batch = Batch(*context, self._items.index[visits.item], self._items.weight[visits.item])
        noise = self._noise(policy, seed, visits)
        scores = policy.scores(batch, noise, lambda_, self.impressions[visits.item])
        tie = tie_break(self._items.hash[visits.item], seed[visits.visit])
        best, greedy = (_best(value, tie, visits) for value in (scores.score, scores.p_click))
        return Choices(best, scores.p_click[best], best != greedy)

    def _noise(self, policy: Policy, seed: Array, visits: Visits) -> Noise:
        """Of every row, but hashed once a visit where its candidates share it: else that would be most of the work."""
        noise: dict[str, Array] = {}
        item_hash = self._items.hash[visits.item]
        version = int(combine(self._seed, np.uint64(self._updates))[0])  # of its own for each seed, or all would share
        for one in policy.noise:
            row_seed = seed[visits.visit] if one.scope == "candidate" else seed
            drawn = draw([one], request_seed=row_seed, version=version, item_hash=item_hash)[one.name]
            noise[one.name] = drawn[:, visits.visit] if one.scope == "request" else drawn
        return noise

    def _count_up_to(self, items: int) -> None:
        new = items - len(self.impressions)
        if new > 0:
            self.impressions = np.concatenate([self.impressions, np.zeros(new, dtype=np.int64)])


def _used(index: Array, weight: Array) -> tuple[Array, Array]:
    """Without the empty slots at the end of a multi-hot field: they weigh nothing and cost the most."""
    filled = np.flatnonzero(weight.any(axis=0))
    used = 1 + int(filled[-1]) if len(filled) else 0
    return index[:, :used], weight[:, :used]


def _best(value: Array, tie: Array, visits: Visits) -> Array:
    """(V,) int64: each visit's row of the highest value, ties by the lowest `tie`."""
    start = visits.start
    rows = np.flatnonzero(value == np.maximum.reduceat(value, start)[visits.visit])
    rows = rows[np.lexsort((tie[rows], visits.visit[rows]))]
    return rows[np.searchsorted(visits.visit[rows], np.arange(len(start)))]
