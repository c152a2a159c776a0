"""Trainer: entries in, optimiser steps out. No I/O, no clock; its state and the log decide every weight to come.

Batches close by count alone, so how the log is chunked into feeds changes nothing. Each batch is predicted before it is
learned from: progressive validation, an honest measure on data that the model has not seen.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from models.budget import Budget
from models.features import item_hashes
from models.learner import Learner
from models.registry import Strategy
from models.types import Array
from service import deltas
from service.checkpoints import ITEM_HASH, ITEM_IMPRESSIONS, Manifest
from service.errors import EventError
from service.events import DeadLetter, Event, Served
from service.streams import Entry
from service.training.examples import Examples, concatenate, examples
from service.training.impressions import Impressions
from service.training.intake import Intake, Useless
from service.training.joins import Joins
from service.training.memory import UNCLICKED, Closed
from service.training.outcome import Outcome, Predictions, slices

#: Prefixes among the arrays of the state: of the half-filled batch, and of the joins.
_WAITING, _JOIN = "waiting.", "join."

_Budgets = dict[str, tuple[float, float, float, float]]  # strategy -> state


class Trainer:
    """All that learns.

    Args:
        learner: of a network whose spec the served records must have.
        joins: with nothing in them.
        lane: whose served records these are.
        strategies: by name.
        batch_size: examples of one step.
        mature_impressions: an item is "new" below so many.
    """

    def __init__(
        self,
        *,
        learner: Learner,
        joins: Joins,
        lane: str,
        strategies: Mapping[str, Strategy],
        batch_size: int,
        mature_impressions: int,
    ) -> None:
        self.learner, self.joins, self.lane, self.strategies = learner, joins, lane, strategies
        self.positions: dict[str, str] = {}  # stream -> last entry fed
        self.data_timestamp_ms = 0  # newest event learned from
        self._batch_size, self._mature = batch_size, mature_impressions
        self._spec = learner.network.spec
        self._intake = Intake(self._spec, lane)
        self._budgets = {name: Budget(one.budget, one.lambda_) for name, one in strategies.items() if one.budget}
        self._waiting = examples([], self._spec)  # fewer than a batch
        self._impressions = Impressions()  # closed

    def feed(self, entries: Sequence[Entry], until_ms: int | None = None) -> Outcome:
        """The next entries of the log.

        Args:
            until_ms: all entries up to this time are known with these; what closes until then is learned from. None:
                they come in the order of the whole log, so all is known that is older than the newest of them.
        """
        outcome = Outcome()
        for entry, message in zip(entries, self._intake.read(entries), strict=True):
            self._enter(outcome, entry, message)
            self.positions[entry.stream] = entry.position
        joined = self.joins.take(self.joins.now_ms - 1 if until_ms is None else until_ms)
        outcome.join = joined.counts
        outcome.dead_letters += [_dead_letter(entry, error) for entry, error in joined.refused]
        if joined.closed:
            self._close(outcome, joined.closed)
        return outcome

    def lambda_(self, strategy: str) -> float:
        """Exploration strength to serve with."""
        budget = self._budgets.get(strategy)
        return budget.lambda_ if budget else self.strategies[strategy].lambda_

    def weights(self) -> dict[str, Array]:
        """What ranking reads: prepared parameters and impression counts. The next feed changes them."""
        item_hash, count = self._impressions.state()
        return {**self.learner.prepared(), ITEM_HASH: item_hash, ITEM_IMPRESSIONS: count}

    def delta(self) -> dict[str, Array] | None:
        """What became of `weights` since `settle`, see `service.deltas`; None where every row may have moved."""
        rows = self.learner.touched()
        if rows is None:
            return None
        item_hash, count = self._impressions.changed()
        return deltas.difference({**self.learner.prepared(), ITEM_HASH: item_hash, ITEM_IMPRESSIONS: count}, rows)

    def settle(self) -> None:
        """What is now has been published: from here on `delta` counts."""
        self.learner.settle()
        self._impressions.settle()

    def state(self) -> dict[str, Array]:
        """Everything else that the future depends on, but for the manifest's positions and data timestamp."""
        budgets = {name: budget.state() for name, budget in self._budgets.items()}
        content = msgspec.msgpack.encode(budgets)
        joins = {f"{_JOIN}{name}": array for name, array in self.joins.state().items()}
        waiting = {f"{_WAITING}{name}": column.copy() for name, column in self._waiting._asdict().items()}
        return {**self.learner.state(), **waiting, **joins, "budgets": np.frombuffer(content, dtype=np.uint8)}

    def restore(self, manifest: Manifest, weights: Mapping[str, Array], state: Mapping[str, Array]) -> None:
        """Continues where a checkpoint was taken.

        Raises:
            ValueError: the parameters are of another network.
        """
        self.learner.restore(weights, state, manifest.version)
        budgets = msgspec.msgpack.decode(state["budgets"].tobytes(), type=_Budgets)
        self.positions, self.data_timestamp_ms = dict(manifest.positions), manifest.data_timestamp_ms
        joins = {name: array for name, array in state.items() if name.startswith(_JOIN)}
        self.joins.restore({name.removeprefix(_JOIN): array for name, array in joins.items()})
        self._waiting = Examples(*(state[f"{_WAITING}{name}"].copy() for name in Examples._fields))
        for name in self._budgets.keys() & budgets.keys():
            self._budgets[name] = Budget.restore(self._budgets[name].target, budgets[name])
        self._impressions.restore(weights[ITEM_HASH], weights[ITEM_IMPRESSIONS])

    def _enter(self, outcome: Outcome, entry: Entry, message: Served | Event | Useless) -> None:
        join = self.joins.of(entry.stream)
        if isinstance(message, Event):
            join.feedback(entry, message)
        elif isinstance(message, Served):
            if join.serve(entry, message) and message.strategy in self._budgets:
                self._budgets[message.strategy].observe(sum(message.explored), len(message.explored), message.lambda_)
        else:
            if message.request_id is not None:
                join.ignore(entry, message.request_id)
            if message.error is not None:
                outcome.dead_letters.append(_dead_letter(entry, message.error))

    def _close(self, outcome: Outcome, closed: Sequence[Closed]) -> None:
        outcome.slices = slices(closed, self.strategies, mature=self._mature)
        self._impressions.add(item_hashes([one.served.item_ids[row] for one in closed for row in one.rows]))
        self._waiting = concatenate(self._waiting, examples(closed, self._spec))
        while self._waiting.rows >= self._batch_size:
            batch, self._waiting = self._waiting.split(self._batch_size)
            self._learn(outcome, batch)

    def _learn(self, outcome: Outcome, batch: Examples) -> None:
        label = batch.label
        p = self.learner.learn(batch.batch, label, context_row=batch.window)
        outcome.predictions.append(Predictions(batch.served_ms[batch.window], p, label))
        clicks = batch.click_ms[batch.click_ms != UNCLICKED].tolist()
        outcome.click_times_ms += clicks
        self.data_timestamp_ms = max(self.data_timestamp_ms, *clicks, *batch.time_ms.tolist())


def _dead_letter(entry: Entry, error: EventError) -> DeadLetter:
    return DeadLetter(
        stream=entry.stream, position=entry.position, code=error.code, detail=error.detail, payload=entry.payload
    )
