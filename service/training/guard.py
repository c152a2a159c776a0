"""Guard: whether what was learned may serve, judged by how the model predicted the newest examples before it saw them.

It sees whole batches in the order in which they are learned, so what it knows depends on the log alone; only when it is
asked depends on the clock.
"""

import math
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from models.metrics import log_loss
from models.types import Array
from service.training.outcome import Predictions, Refusal

#: Clicks, seen or predicted, below which chance alone moves PCOC too far: by 10 % with a hundred.
ENOUGH_CLICKS = 100

_WINDOW, _COUNTS = "guard.window", "guard.counts"  # among the arrays of a version's state


class Bounds(NamedTuple):
    """What is asked of the last `window_examples`, once `min_examples` have been learned from in all."""

    window_examples: int
    min_examples: int
    pcoc_low: float
    pcoc_high: float
    normalised_entropy: float


#: Nothing is asked.
UNGUARDED = Bounds(1, sys.maxsize, 0.0, math.inf, math.inf)


class Guard:
    """Judges one trainer's versions.

    The first examples are judged by nobody: a model that has just begun predicts `initial_ctr`, which may be far off,
    and whatever it learns then is better than that.
    """

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._batches: deque[tuple[float, ...]] = deque()  # examples of the log, clicks, predicted clicks, loss
        self._seen = 0  # examples learned from, ever
        self.in_a_row = 0  # versions refused since the last one that was not

    def observe(self, predictions: Sequence[Predictions]) -> None:
        """What was learned from next, a batch each."""
        for _, p, label, weight in predictions:
            examples, predicted = (float(one.sum(dtype=np.float64)) for one in (weight, weight * p))
            self._batches.append((examples, float(label.sum()), predicted, examples * log_loss(p, label, weight)))
            self._seen += len(p)
        total = sum(batch[0] for batch in self._batches)
        while self._batches and total - self._batches[0][0] >= self._bounds.window_examples:
            total -= self._batches.popleft()[0]

    @property
    def pcoc(self) -> float:
        """Predicted over observed clicks of the window; NaN where there are neither."""
        _, clicks, predicted, _ = self._sums()
        return predicted / clicks if clicks else math.inf if predicted else math.nan

    @property
    def normalised_entropy(self) -> float:
        """Log loss of the window over that of a constant: its click rate, known beforehand. NaN without a click."""
        examples, clicks, _, loss = self._sums()
        rate = clicks / examples if examples else 0.0
        if not 0.0 < rate < 1.0:
            return math.nan
        return loss / examples / -(rate * math.log(rate) + (1.0 - rate) * math.log(1.0 - rate))

    def judge(self) -> Refusal | None:
        """Whether a version that is written now may serve; to be asked once for each."""
        refusal = self._judge()
        self.in_a_row = self.in_a_row + 1 if refusal else 0
        return refusal

    def state(self) -> dict[str, Array]:
        """What the next judgement depends on."""
        window = np.array(self._batches, dtype=np.float64).reshape(-1, 4)
        return {_WINDOW: window, _COUNTS: np.array([self._seen, self.in_a_row], dtype=np.int64)}

    def restore(self, state: Mapping[str, Array]) -> None:
        """Continues where `state` was taken."""
        self._batches = deque(tuple(batch) for batch in state[_WINDOW].tolist())
        self._seen, self.in_a_row = state[_COUNTS].tolist()

    def _judge(self) -> Refusal | None:
        _, clicks, predicted, _ = self._sums()
        few = clicks < ENOUGH_CLICKS and predicted < ENOUGH_CLICKS  # false for NaN
        if self._seen < self._bounds.min_examples or few:
            return None
        low, high, most = self._bounds.pcoc_low, self._bounds.pcoc_high, self._bounds.normalised_entropy
        if not low <= self.pcoc <= high:
            return Refusal("pcoc", f"{self.pcoc:.4g} clicks predicted for each, allowed are {low:g} to {high:g}")
        if self.normalised_entropy > most:
            detail = f"{self.normalised_entropy:.4g} times the log loss of a constant, allowed are {most:g}"
            return Refusal("normalised_entropy", detail)
        return None

    def _sums(self) -> list[float]:
        """Of the window: examples, clicks, predicted clicks, loss."""
        return np.array(self._batches, dtype=np.float64).reshape(-1, 4).sum(axis=0).tolist()  # type: ignore[no-any-return]
