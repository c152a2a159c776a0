"""Trainer: entries in, optimiser steps out. No I/O, no clock; its state and the log decide every weight to come.

Batches close by count alone, so how the log is chunked into feeds changes nothing. Each batch is predicted before it is
learned from: progressive validation, an honest measure on data that the model has not seen.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec
import numpy as np

from models.budget import Budget
from models.features import item_hashes
from models.learner import Learner
from models.metrics import log_loss
from models.registry import Strategy
from models.types import Array, ItemAge
from service.checkpoints import ITEM_HASH, ITEM_IMPRESSIONS, Manifest
from service.errors import EventError
from service.events import DeadLetter, decode_event, decode_served
from service.streams import Entry
from service.training.examples import Example, Inspector, example, stack
from service.training.join import Closed, Join

#: What a strategy is called in metrics that the trainer does not know: the stream must not make labels.
OTHER = "other"


class Predictions(NamedTuple):
    """Progressive: each made before the example was learned from. All (N,)."""

    time_ms: Array  # int64, when the request was served
    p: Array  # float32
    label: Array  # float32, 1 clicked


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
    """Sums of outcomes: over a run, or since the last version."""

    examples: int = 0
    steps: int = 0
    clicks: float = 0.0
    predicted_clicks: float = 0.0
    loss: float = 0.0
    click_times_ms: list[int] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        for _, p, label in outcome.predictions:
            self.examples += len(p)
            self.steps += 1
            self.clicks += float(label.sum())
            self.predicted_clicks += float(p.sum(dtype=np.float64))
            self.loss += len(p) * log_loss(p, label)
        self.click_times_ms += outcome.click_times_ms

    def metrics(self) -> dict[str, float]:
        """Progressive, those that are defined."""
        found = {"examples": float(self.examples), "clicks": self.clicks}
        if self.examples:
            found["log_loss"] = self.loss / self.examples
        if self.clicks:
            found["pcoc"] = self.predicted_clicks / self.clicks
        return found


class _State(msgspec.Struct, array_like=True):
    """What is not arrays."""

    join: bytes
    batch: list[Example]
    budgets: dict[str, tuple[float, float, float, float]]


class Trainer:
    """All that learns.

    Args:
        learner: of a network whose spec the served records must have.
        join: with nothing in it.
        lane: whose served records these are.
        strategies: by name.
        batch_size: examples of one step.
        mature_impressions: an item is "new" below so many.
    """

    def __init__(
        self,
        *,
        learner: Learner,
        join: Join,
        lane: str,
        strategies: Mapping[str, Strategy],
        batch_size: int,
        mature_impressions: int,
    ) -> None:
        self.learner, self.join, self.lane, self.strategies = learner, join, lane, strategies
        self.positions: dict[str, str] = {}  # stream -> last entry fed
        self.data_timestamp_ms = 0  # newest event learned from
        self._batch_size, self._mature = batch_size, mature_impressions
        self._inspector = Inspector(learner.network.spec)
        self._budgets = {name: Budget(one.budget, one.lambda_) for name, one in strategies.items() if one.budget}
        self._batch: list[Example] = []
        self._impressions: Counter[int] = Counter()  # item hash -> closed impressions

    def feed(self, entries: Sequence[Entry]) -> Outcome:
        """The next entries of the log."""
        outcome = Outcome()
        for entry in entries:
            try:
                self._enter(entry)
            except EventError as error:
                outcome.dead_letters.append(_dead_letter(entry, error))
            self.positions[entry.stream] = entry.position
        joined = self.join.take()
        outcome.join = joined.counts
        outcome.dead_letters += [_dead_letter(entry, error) for entry, error in joined.refused]
        self._impressions.update(item_hashes([one.served.item_ids[one.row] for one in joined.closed]).tolist())
        for closed in joined.closed:
            self._sum(outcome, closed)
            self._batch.append(example(closed))
        while len(self._batch) >= self._batch_size:
            self._learn(outcome, self._batch[: self._batch_size])
            del self._batch[: self._batch_size]
        return outcome

    def lambda_(self, strategy: str) -> float:
        """Exploration strength to serve with."""
        budget = self._budgets.get(strategy)
        return budget.lambda_ if budget else self.strategies[strategy].lambda_

    def weights(self) -> dict[str, Array]:
        """What ranking reads: prepared parameters and impression counts."""
        hashes = np.array(sorted(self._impressions), dtype=np.uint64)
        counts = np.array([self._impressions[one] for one in hashes.tolist()], dtype=np.int64)
        return {**self.learner.prepared(), ITEM_HASH: hashes, ITEM_IMPRESSIONS: counts}

    def state(self) -> dict[str, Array]:
        """Everything else that the future depends on, but for the manifest's positions and data timestamp."""
        budgets = {name: budget.state() for name, budget in self._budgets.items()}
        content = msgspec.msgpack.encode(_State(self.join.state(), self._batch, budgets))
        return {**self.learner.state(), "trainer": np.frombuffer(content, dtype=np.uint8)}

    def restore(self, manifest: Manifest, weights: Mapping[str, Array], state: Mapping[str, Array]) -> None:
        """Continues where a checkpoint was taken.

        Raises:
            ValueError: the parameters are of another network.
        """
        self.learner.restore(weights, state, manifest.version)
        content = msgspec.msgpack.decode(state["trainer"].tobytes(), type=_State)
        self.positions, self.data_timestamp_ms = dict(manifest.positions), manifest.data_timestamp_ms
        self.join.restore(content.join)
        self._batch = content.batch
        for name in self._budgets.keys() & content.budgets.keys():
            self._budgets[name] = Budget.restore(self._budgets[name].target, content.budgets[name])
        counts = zip(weights[ITEM_HASH].tolist(), weights[ITEM_IMPRESSIONS].tolist(), strict=True)
        self._impressions = Counter(dict(counts))

    def _enter(self, entry: Entry) -> None:
        """Raises EventError: unreadable_entry, schema_version, spec_mismatch."""
        if not entry.stream.endswith(":served"):
            self.join.feedback(entry, decode_event(entry.payload))
            return
        served = decode_served(entry.payload)
        if served.lane != self.lane:
            self.join.ignore(entry, served.request_id)
            return
        try:
            self._inspector.check(served)
        except EventError:
            self.join.ignore(entry, served.request_id)  # what is said about it would only be refused once more
            raise
        if self.join.serve(entry, served) and served.strategy in self._budgets:
            self._budgets[served.strategy].observe(sum(served.explored), len(served.explored), served.lambda_)

    def _sum(self, outcome: Outcome, closed: Closed) -> None:
        served, row = closed.served, closed.row
        strategy = served.strategy if served.strategy in self.strategies else OTHER
        age: ItemAge = "new" if served.impressions[row] < self._mature else "mature"
        sums = outcome.slices.setdefault((strategy, age), Slice())
        sums.impressions += 1
        sums.clicks += closed.click_ms is not None
        sums.predicted_clicks += served.p_click[row]
        sums.score += served.score[row]

    def _learn(self, outcome: Outcome, examples: Sequence[Example]) -> None:
        batch, label = stack(examples, self.learner.network.spec)
        served_ms = np.array([one.served_ms for one in examples], dtype=np.int64)
        outcome.predictions.append(Predictions(served_ms, self.learner.predict(batch), label))
        self.learner.learn(batch, label)
        clicks = [one.click_ms for one in examples if one.click_ms is not None]
        outcome.click_times_ms += clicks
        self.data_timestamp_ms = max(self.data_timestamp_ms, *clicks, *(one.time_ms for one in examples))


def _dead_letter(entry: Entry, error: EventError) -> DeadLetter:
    return DeadLetter(
        stream=entry.stream, position=entry.position, code=error.code, detail=error.detail, payload=entry.payload
    )
