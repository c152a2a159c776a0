"""GuideBoot's synthetic task: a Bernoulli bandit whose actions are known by three categorical attributes.

    P(click) = sigmoid(offset + u[first] + v[second] + w[third])

One environment a seed; the paper averages over 100. It states no number of actions, no cardinality, no distribution of
the coefficients and no offset: those here are ours.

References:
    [1] "GuideBoot: Guided Bootstrap for Deep Contextual Bandits", WWW 2021, arXiv:2107.08383.
"""

import numpy as np

from models.evaluation.driver import Visits
from models.evaluation.items import Items
from models.evaluation.worlds.world import Arrivals, Scene
from models.spec import FeatureSpec, Field

ATTRIBUTES = ("first", "second", "third")
#: Far more rows than values, so that hardly any two share one.
SPEC = FeatureSpec(
    tuple(Field(name=name, side="item", kind="categorical", buckets=2_048, width=8) for name in ATTRIBUTES)
)


class GlmWorld:
    """The same actions for every visit, and nobody is known. A `World`.

    Args:
        seed: of everything.
        actions: candidates of every visit, their attributes drawn uniformly.
        values: of each attribute.
        spread: standard deviation of the coefficients.
        offset: log odds of an action whose coefficients are 0.
    """

    spec = SPEC

    def __init__(
        self, *, seed: int, actions: int = 10, values: int = 10, spread: float = 1.0, offset: float = -2.0
    ) -> None:
        generator = np.random.default_rng([seed, 1])
        coefficients = generator.normal(0.0, spread, (len(ATTRIBUTES), values))
        value = generator.integers(values, size=(actions, len(ATTRIBUTES)))
        logit = offset + coefficients[np.arange(len(ATTRIBUTES)), value].sum(axis=1)
        self._p_click = 1.0 / (1.0 + np.exp(-logit))  # (actions,)
        self._arrivals = Arrivals(seed)
        self.items = Items(SPEC)
        features = [dict(zip(ATTRIBUTES, row, strict=True)) for row in value.tolist()]
        self.items.add([f"action-{number}" for number in range(actions)], features)

    def visits(self, count: int, *, pace: float = 1.0) -> Scene:
        """See `World`."""
        actions = len(self._p_click)
        visits = Visits(
            np.zeros((count, 0), dtype=np.int32),
            np.zeros((count, 0), dtype=np.float32),
            np.repeat(np.arange(count), actions),
            np.tile(np.arange(actions), count),
        )
        _, luck = self._arrivals.next(count, pace)
        return Scene(visits, np.zeros(count, dtype=np.int64), np.tile(self._p_click, count), luck)
