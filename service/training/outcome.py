"""Outcome: what a feed came to, and a version, for those who measure."""

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from models.metrics import log_loss
from models.types import Array, ItemAge
from service.checkpoints import Manifest
from service.events import DeadLetter
from service.training.memory import UNCLICKED, Closed

#: At most so many click times are kept while no version can be written; a manifest takes a thousand of them.
CLICK_TIMES = 100_000

#: What a strategy is called in metrics that the trainer does not know: the stream must not make labels.
OTHER = "other"


class Refusal(NamedTuple):
    """Why a version may not serve, as the guard says."""

    code: str  # "pcoc" or "normalised_entropy"
    detail: str


class Published(NamedTuple):
    """What became of a version: it serves, was refused, is behind the one that serves, or waits, for that is pinned."""

    result: Literal["published", "refused", "behind", "pinned"]
    manifest: Manifest | None  # None where it was not written
    refusal: Refusal | None = None


class Predictions(NamedTuple):
    """Progressive: each made before the example was learned from. All (N,)."""

    time_ms: Array  # int64, when the request was served
    p: Array  # float32
    label: Array  # float32, 1 clicked
    weight: Array  # float32, how many examples of the log it stands for


@dataclass
class Slice:
    """Sums over closed impressions of one strategy and item age."""

    impressions: int = 0
    clicks: int = 0
    predicted_clicks: float = 0.0
    score: float = 0.0


@dataclass
class Outcome:
    """What one feed came to."""

    predictions: list[Predictions] = field(default_factory=list)  # a batch each, so as many as steps
    click_times_ms: list[int] = field(default_factory=list)  # of the clicks learned
    slices: dict[tuple[str, ItemAge], Slice] = field(default_factory=dict)
    join: Counter[str] = field(default_factory=Counter)
    dead_letters: list[DeadLetter] = field(default_factory=list)


@dataclass
class Progress:
    """Sums of outcomes: over a run, or since the last version. Clicks, loss and weight are those of the log."""

    examples: int = 0  # learned from
    steps: int = 0
    clicks: float = 0.0
    predicted_clicks: float = 0.0
    loss: float = 0.0
    weight: float = 0.0
    click_times_ms: list[int] = field(default_factory=list)
    every: int = 1  # of the clicks one in so many is among them

    def add(self, outcome: Outcome) -> None:
        self.click_times_ms += outcome.click_times_ms[-round(self.clicks) % self.every :: self.every]
        while len(self.click_times_ms) > CLICK_TIMES:
            self.click_times_ms, self.every = self.click_times_ms[::2], 2 * self.every
        for _, p, label, weight in outcome.predictions:
            total = float(weight.sum(dtype=np.float64))
            self.examples += len(p)
            self.steps += 1
            self.clicks += float(label.sum())
            self.predicted_clicks += float((weight * p).sum(dtype=np.float64))
            self.loss += total * log_loss(p, label, weight)
            self.weight += total

    def metrics(self) -> dict[str, float]:
        """Progressive, those that are defined."""
        found = {"examples": float(self.examples), "clicks": self.clicks}
        if self.examples:
            found["log_loss"] = self.loss / self.weight
        if self.clicks:
            found["pcoc"] = self.predicted_clicks / self.clicks
        return found


def slices(closed: Sequence[Closed], known: Container[str], *, mature: int) -> dict[tuple[str, ItemAge], Slice]:
    """Sums by the strategy that served, OTHER where it is not `known`, and by the item's age then.

    Args:
        mature: an item is "new" below so many impressions.
    """
    by_strategy: dict[str, list[Closed]] = {}
    for one in closed:
        name = one.served.strategy
        by_strategy.setdefault(name if name in known else OTHER, []).append(one)
    found: dict[tuple[str, ItemAge], Slice] = {}
    for strategy, group in by_strategy.items():
        shown = [(one.served, row) for one in group for row in one.rows]
        new = np.array([served.impressions[row] < mature for served, row in shown])
        p_click = np.array([served.p_click[row] for served, row in shown])
        score = np.array([served.score[row] for served, row in shown])
        clicked = np.array([click_ms != UNCLICKED for one in group for click_ms in one.click_ms])
        ages: list[tuple[ItemAge, Array]] = [("new", new), ("mature", ~new)]
        for age, rows in ages:
            if rows.any():
                sums = float(p_click[rows].sum()), float(score[rows].sum())
                found[strategy, age] = Slice(int(rows.sum()), int(clicked[rows].sum()), *sums)
    return found
