"""Unbiased replay: what a strategy would have earned, from the log of a uniformly random one.

Each logged visit is put to the policy. Where it picks the very article that was displayed, the click counts and the
policy learns from it; every other visit is as if it had never been. What is kept is then distributed as if the policy
had ruled the traffic itself [1]. The policy learns once a partition of the log, in the log's order, as in the
closed-loop protocol of [2] and after a warm-up that every policy learns alike.

References:
    [1] Li, Chu, Langford, Wang 2011, "Unbiased Offline Evaluation of Contextual-bandit-based News Article
        Recommendation Algorithms", WSDM, arXiv:1003.5956.
    [2] "Pluggable Deep Thompson Sampling", SDM 2023, supplement, Algorithm 5. There a window of the newest 80,000 kept
        visits is learned anew each time; here each kept visit is learned once, as a stream is.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import numpy as np

from models.budget import Budget
from models.evaluation.r6b import Event
from models.features import Encoder, item_hashes
from models.learner import Learner
from models.noise import combine, draw
from models.policy import Policy
from models.registry import Strategy
from models.slate import tie_break
from models.spec import FeatureSpec
from models.types import Array, Batch, Noise

_BLOCK = 128  # visits scored at a time: the masks of UCB for a whole partition would fill the memory
_REMEMBERED = 4096  # users


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the log is gone through.

    Args:
        warm_up: visits that are learned as they were logged, before the evaluation begins.
        update_every: visits of a partition; the policy learns after each.
        batch_size: most examples of an optimiser step.
    """

    warm_up: int = 80_000
    update_every: int = 1_000
    batch_size: int = 64


@dataclass(kw_only=True)
class Result:
    """What the policy earned on the visits after the warm-up."""

    events: int = 0
    matched: int = 0  # the policy picked what was displayed
    clicks: int = 0  # on those
    expected_random_matches: float = 0.0  # sum of 1 / |A|
    expected_random_clicks: float = 0.0  # sum of click / |A|

    @property
    def ctr(self) -> float | None:
        return self.clicks / self.matched if self.matched else None


def replay(events: Iterable[Event], *, strategy: Strategy, learner: Learner, seed: int, protocol: Protocol) -> Result:
    """Goes through the log once. Every random number comes from (seed, number of the visit).

    Args:
        events: the log, lazily.
        strategy: to judge.
        learner: fresh; it is what the strategy learns with. Of users its spec has the multi-hot field "features" alone,
            of items the id.
        seed: of the strategy's noise.
        protocol: of the replay.
    """
    stream, driver, result = iter(events), _Driver(strategy, learner, seed, protocol), Result()
    for part in _partitions(islice(stream, protocol.warm_up), protocol.update_every):
        driver.learn(part)
    for part in _partitions(stream, protocol.update_every):
        kept = [event for event, pick in zip(part, driver.pick(part), strict=True) if pick == event.displayed]
        driver.learn(kept)
        result.events += len(part)
        result.matched += len(kept)
        result.clicks += sum(event.click for event in kept)
        result.expected_random_matches += sum(1.0 / len(event.candidates) for event in part)
        result.expected_random_clicks += sum(event.click / len(event.candidates) for event in part)
    return result


def _partitions(events: Iterable[Event], size: int) -> Iterator[list[Event]]:
    stream = iter(events)
    while part := list(islice(stream, size)):
        yield part


class _Driver:
    """All that changes while a log is replayed: the learner, the impression counts and the budget."""

    def __init__(self, strategy: Strategy, learner: Learner, seed: int, protocol: Protocol) -> None:
        self._policy = Policy(learner.network, learner.params, strategy)  # the learner's steps change them in place
        self._learner = learner
        self._batch_size = protocol.batch_size
        self._budget = None if strategy.budget is None else Budget(strategy.budget, strategy.lambda_)
        self._seed = np.array([seed], dtype=np.uint64)
        self._asked = 0  # visits put to the policy
        self._catalogue = _Catalogue(learner.network.spec)

    def pick(self, part: Sequence[Event]) -> list[int]:
        """Index of the policy's choice among the candidates of each visit."""
        picked: list[int] = []
        explored = 0
        lambda_ = self._policy.strategy.lambda_ if self._budget is None else self._budget.lambda_
        for block in _partitions(part, _BLOCK):
            first, changed = self._pick(block, lambda_)
            picked += first.tolist()
            explored += changed
        if self._budget is not None:
            # Of all choices, kept or not: what the policy would do is no feedback on it.
            self._budget.observe(explored, len(part), lambda_)
        return picked

    def learn(self, shown: Sequence[Event]) -> None:
        """The displayed articles of these visits, each once, in their order."""
        if not shown:
            return
        batch, item = self._catalogue.displayed(shown)
        click = np.array([event.click for event in shown], dtype=np.float32)
        # Even shares, since Adam's step on a rest of one example would be as long as on a full batch.
        for rows in np.array_split(np.arange(len(shown)), -(-len(shown) // self._batch_size)):
            self._learner.learn(Batch(*(array[rows] for array in batch)), click[rows])
        np.add.at(self._catalogue.impressions, item, 1)

    def _pick(self, block: Sequence[Event], lambda_: float) -> tuple[Array, int]:
        """((E,) int64 choices, how many of them exploration changed)."""
        number = np.arange(self._asked, self._asked + len(block), dtype=np.uint64)
        self._asked += len(block)
        rows = self._catalogue.candidates(block)
        seed = combine(self._seed, number)  # (E,)
        noise = self._noise(seed, rows)
        scores = self._policy.scores(rows.batch, noise, lambda_, self._catalogue.impressions[rows.item])
        tie = tie_break(self._catalogue.hash[rows.item], seed[rows.event])
        # Sorted by visit first, so the best row of a visit stands where its first row stood.
        start = np.searchsorted(rows.event, np.arange(len(block)))
        best, greedy = (np.lexsort((tie, -value, rows.event))[start] for value in (scores.score, scores.p_click))
        return best - start, int(np.count_nonzero(best != greedy))

    def _noise(self, seed: Array, rows: "_Rows") -> Noise:
        """Of every row, but hashed once a visit where its candidates share it: else that would be most of the work."""
        noise: dict[str, Array] = {}
        for one in self._policy.noise:
            row_seed = seed[rows.event] if one.scope == "candidate" else seed
            item_hash = self._catalogue.hash[rows.item]
            drawn = draw([one], request_seed=row_seed, version=self._learner.step, item_hash=item_hash)[one.name]
            noise[one.name] = drawn[:, rows.event] if one.scope == "request" else drawn
        return noise


class _Rows(NamedTuple):
    """E visits laid flat: all their candidates, B of them."""

    batch: Batch  # C = B
    event: Array  # (B,) int64, ascending: which visit
    item: Array  # (B,) int64: number in the catalogue


class _Catalogue:
    """The articles met so far, encoded once each, and how often each was shown."""

    def __init__(self, spec: FeatureSpec) -> None:
        self._encoder = Encoder(spec)
        self._number: dict[str, int] = {}
        self._index = np.zeros((0, spec.item.slots), dtype=np.int32)  # (N, Ki)
        self._weight = np.zeros((0, spec.item.slots), dtype=np.float32)  # (N, Ki)
        self.hash = np.zeros(0, dtype=np.uint64)  # (N,)
        self.impressions = np.zeros(0, dtype=np.int64)  # (N,)
        self._user = lru_cache(_REMEMBERED)(self._encode_user)

    def candidates(self, events: Sequence[Event]) -> _Rows:
        """Every candidate of these visits."""
        item = self._numbers([one for event in events for one in event.candidates])
        event = np.repeat(np.arange(len(events)), [len(event.candidates) for event in events])
        index, weight = self._users(events)
        return _Rows(Batch(index[event], weight[event], self._index[item], self._weight[item]), event, item)

    def displayed(self, events: Sequence[Event]) -> tuple[Batch, Array]:
        """The displayed article of each visit, and its number in the catalogue (E,)."""
        item = self._numbers([event.candidates[event.displayed] for event in events])
        return Batch(*self._users(events), self._index[item], self._weight[item]), item

    def _numbers(self, ids: Sequence[str]) -> Array:
        unseen = [one for one in dict.fromkeys(ids) if one not in self._number]
        if unseen:
            self._number |= {one: number for number, one in enumerate(unseen, start=len(self._number))}
            index, weight = self._encoder.items(unseen, [None] * len(unseen))
            self._index, self._weight = np.concatenate([self._index, index]), np.concatenate([self._weight, weight])
            self.hash = np.concatenate([self.hash, item_hashes(unseen)])
            self.impressions = np.concatenate([self.impressions, np.zeros(len(unseen), dtype=np.int64)])
        return np.array([self._number[one] for one in ids], dtype=np.int64)

    def _users(self, events: Sequence[Event]) -> tuple[Array, Array]:
        """(E, Kc) rows and weights."""
        rows = [self._user(event.features) for event in events]
        index, weight = (np.concatenate(side) for side in zip(*rows, strict=True))
        # Empty slots at the end of the multi-hot field weigh nothing and, with 136 of them, cost the most.
        used = 1 + int(np.flatnonzero(weight.any(axis=0))[-1])
        return index[:, :used], weight[:, :used]

    def _encode_user(self, features: tuple[int, ...]) -> tuple[Array, Array]:
        return self._encoder.context(user={"features": features})
