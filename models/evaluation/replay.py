"""Unbiased replay: what a strategy would have earned, from the log of a uniformly random one.

Each logged visit is put to the policy. Where it picks the very article that was displayed, the click counts and the
policy learns from it; every other visit is as if it had never been. What is kept is then distributed as if the policy
had ruled the traffic itself [1]. The policy learns once a partition of the log, in the log's order, as in the
closed-loop protocol of [2] and after a warm-up that every policy learns alike.

References:
    [1] Li, Chu, Langford, Wang 2011, "Unbiased Offline Evaluation of Contextual-bandit-based News Article
        Recommendation Algorithms", WSDM, arXiv:1003.5956.
    [2] "Pluggable Deep Thompson Sampling", SDM 2023, supplement, Algorithm 5. There a window of the newest 80,000 kept
        visits is learned anew each time, as `Protocol.window` does; without it each kept visit is learned once.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress, islice
from types import MappingProxyType

import numpy as np

from models.evaluation.driver import Driver, Examples, Protocol, Visits
from models.evaluation.items import Items
from models.evaluation.r6b import Event
from models.features import Encoder, Features
from models.learner import Learner
from models.registry import Strategy
from models.spec import FeatureSpec
from models.types import Array

_REMEMBERED = 4096  # users


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


def replay(
    events: Iterable[Event],
    *,
    strategy: Strategy,
    make: Callable[[int], Learner],
    seed: int,
    protocol: Protocol,
    known: Mapping[str, Features] = MappingProxyType({}),
) -> Result:
    """Goes through the log once. Every random number comes from (seed, number of the visit).

    Args:
        events: the log, lazily.
        strategy: to judge.
        make: a fresh learner, as of `Driver`. Of users its spec has the multi-hot field "features" alone.
        seed: of the strategy's noise.
        protocol: of the replay.
        known: features of items, by id.
    """
    stream, result = iter(events), Result()
    encoded = _Encoded(make(0).network.spec, known)
    driver = Driver(strategy=strategy, make=make, items=encoded.items, seed=seed, protocol=protocol)
    for part in _partitions(islice(stream, protocol.warm_up), protocol.update_every):
        driver.learn(encoded.displayed(part))
    for part in _partitions(stream, protocol.update_every):
        visits = encoded.candidates(part)
        choices = driver.pick(visits)
        matches = choices.row - visits.start == [event.displayed for event in part]
        driver.observe(choices.changed[matches])
        kept = list(compress(part, matches))
        driver.learn(encoded.displayed(kept))
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


class _Encoded:
    """Events as arrays."""

    def __init__(self, spec: FeatureSpec, known: Mapping[str, Features]) -> None:
        self.items = Items(spec, known)
        self._encoder, self._slots = Encoder(spec), spec.context.slots
        self._user = lru_cache(_REMEMBERED)(self._encode_user)

    def candidates(self, events: Sequence[Event]) -> Visits:
        """Every candidate of these visits."""
        item = self.items.numbers([one for event in events for one in event.candidates])
        visit = np.repeat(np.arange(len(events)), [len(event.candidates) for event in events])
        return Visits(*self._users(events), visit, item)

    def displayed(self, events: Sequence[Event]) -> Examples:
        """The displayed article of each visit."""
        item = self.items.numbers([event.candidates[event.displayed] for event in events])
        return Examples(*self._users(events), item, np.array([event.click for event in events], dtype=np.float32))

    def _users(self, events: Sequence[Event]) -> tuple[Array, Array]:
        """(E, Kc) rows and weights."""
        if not events:
            return np.zeros((0, self._slots), dtype=np.int32), np.zeros((0, self._slots), dtype=np.float32)
        index, weight = (np.concatenate(side) for side in zip(*map(self._of, events), strict=True))
        return index, weight

    def _of(self, event: Event) -> tuple[Array, Array]:
        return self._user(event.features)

    def _encode_user(self, features: tuple[int, ...] | tuple[str, ...]) -> tuple[Array, Array]:
        return self._encoder.context(user={"features": features})
