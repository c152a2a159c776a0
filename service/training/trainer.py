"""Trainer: entries in, optimiser steps out. No I/O, no clock; its state and the log decide every weight to come.

Batches close by count alone, so how the log is chunked into feeds changes nothing. Each batch is predicted before it is
learned from: progressive validation, an honest measure on data that the model has not seen.

Ranks that train together each join their own partitions of the log, then tell each other what closed. From there on all
have the same: every batch, of which each computes a share of the gradient. Of the weights each moves a part, and they
are brought together for a version.
"""

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from safetensors import numpy as safetensors
from xxhash import xxh3_128

from models.budget import Budget
from models.features import item_hashes
from models.learner import Learner
from models.registry import Strategy
from models.types import Array
from service import deltas
from service.checkpoints import ITEM_HASH, ITEM_IMPRESSIONS, Manifest
from service.errors import CheckpointError, EventError
from service.events import DeadLetter, Event, Served, dead_letter
from service.streams import Entry, order, partition_of
from service.training.examples import Examples, concatenate, examples
from service.training.impressions import Impressions
from service.training.intake import Intake, Useless
from service.training.joins import Joins
from service.training.memory import UNCLICKED
from service.training.news import Explored, News, exchange
from service.training.outcome import Outcome, Predictions, slices
from service.training.ranks import Ranks
from service.training.sampling import Sampler

#: Prefixes among the arrays of the state: of the half-filled batch, and of the joins.
_WAITING, _JOIN = "waiting.", "join."

#: And of what `follow` sends.
_PARTS = "weights/", "state/"

_Budgets = dict[str, tuple[float, float, float, float]]  # strategy -> state


class Trainer:
    """All that learns.

    Args:
        learner: of a network whose spec the served records must have. Its peers are the ranks, where there are several.
        joins: with nothing in them.
        lane: whose served records these are.
        strategies: by name.
        batch_size: examples of one step.
        mature_impressions: an item is "new" below so many.
        ranks: that train together. All call `feed`, `collect` and `follow` at the same time, each with its own entries.
        sampler: of what is learned from; None: everything. The learner knows its rate.
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
        ranks: Ranks | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        self.ranks = ranks or Ranks()
        self.learner, self.joins, self.lane, self.strategies = learner, joins, lane, strategies
        self.positions: dict[str, str] = {}  # stream -> last entry fed
        self.data_timestamp_ms = 0  # newest event learned from
        self._batch_size, self._mature = batch_size, mature_impressions
        self._sampler = sampler or Sampler(rate=1.0, seed=0)
        self._spec = learner.network.spec
        self._intake = Intake(self._spec, lane)
        self._budgets = {name: Budget(one.budget, one.lambda_) for name, one in strategies.items() if one.budget}
        self._waiting = examples([], self._spec)  # fewer than a batch
        self._impressions = Impressions()  # closed
        # The joins of other ranks; None where they have gone on since they were collected.
        self._elsewhere: dict[str, Array] | None = {}

    def feed(self, entries: Sequence[Entry]) -> Outcome:
        """The next entries of the log, in order; on each rank those of its partitions, up to the same place.

        So all is known that is older than the newest of them, and what has closed until then is learned from.
        """
        outcome = Outcome()
        explored: list[Explored] = []
        for entry, message in zip(entries, self._intake.read(entries), strict=True):
            self._enter(outcome, explored, entry, message)
        joined = self.joins.take(self.ranks.most(self.joins.now_ms, resting=not entries) - 1)
        outcome.join = joined.counts
        outcome.dead_letters += [_dead_letter(entry, error) for entry, error in joined.refused]
        outcome.slices = slices(joined.closed, self.strategies, mature=self._mature)
        item_hash = item_hashes([one.served.item_ids[row] for one in joined.closed for row in one.rows])
        kept = self._sampler.kept(joined.closed)
        positions = {entry.stream: entry.position for entry in entries}
        ours = News([one.order for one in kept], examples(kept, self._spec), item_hash, explored, positions)
        self._learn(outcome, exchange(ours, self.ranks))
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

    def collect(self, *, full: bool = True) -> None:
        """Brings the weights of all ranks together, and to rank 0 the rest of their state, for its `state`.

        Args:
            full: with the state.

        Raises:
            CheckpointError: ranks_differ, on all of them.
        """
        self.learner.level()
        if not full:
            return
        digests = self.ranks.gather(_digest(self.learner) if self.ranks.size > 1 else b"")
        if len(set(digests)) > 1:
            text = "ranks do not have the same weights; a restart goes on from the last version"
            raise CheckpointError("ranks_differ", text)
        parts = self.ranks.collect(safetensors.save(self.joins.state()) if self.ranks.rank else b"")
        self._elsewhere = {name: array for part in parts[1:] for name, array in safetensors.load(part).items()}
        shares = self.ranks.collect(safetensors.save(self.learner.share()) if self.ranks.rank else b"")
        self.learner.complete([safetensors.load(part) for part in shares[1:]])

    def follow(self, manifest: Manifest | None) -> None:
        """Puts every rank where rank 0 is, which gives the manifest of the version that it is at."""
        if self.ranks.size == 1:
            return
        arrays: dict[str, Array] = {}
        if manifest is not None:
            arrays |= {f"weights/{name}": array for name, array in self.weights().items()}
            arrays |= {f"state/{name}": array for name, array in self.state().items()}
            arrays["manifest"] = np.frombuffer(msgspec.msgpack.encode(manifest), dtype=np.uint8)
        arrays = safetensors.load(self.ranks.spread(safetensors.save(arrays)))
        if self.ranks.rank:
            parts = (
                {name.removeprefix(of): one for name, one in arrays.items() if name.startswith(of)} for of in _PARTS
            )
            self.restore(msgspec.msgpack.decode(arrays["manifest"].tobytes(), type=Manifest), *parts)

    def state(self) -> dict[str, Array]:
        """Everything else that the future depends on, but for the manifest's positions and data timestamp."""
        budgets = {name: budget.state() for name, budget in self._budgets.items()}
        content = msgspec.msgpack.encode(budgets)
        assert self._elsewhere is not None, "other ranks have gone on since: collect first"
        joins = {f"{_JOIN}{name}": array for name, array in {**self.joins.state(), **self._elsewhere}.items()}
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
        joins = {name.removeprefix(_JOIN): array for name, array in state.items() if name.startswith(_JOIN)}
        ours = {name: array for name, array in joins.items() if self.ranks.owns(partition_of(name))}
        self.joins.restore(ours)
        self._elsewhere = {name: array for name, array in joins.items() if name not in ours}
        self._waiting = Examples(*(state[f"{_WAITING}{name}"].copy() for name in Examples._fields))
        for name in self._budgets.keys() & budgets.keys():
            self._budgets[name] = Budget.restore(self._budgets[name].target, budgets[name])
        self._impressions.restore(weights[ITEM_HASH], weights[ITEM_IMPRESSIONS])

    def _enter(
        self, outcome: Outcome, explored: list[Explored], entry: Entry, message: Served | Event | Useless
    ) -> None:
        join = self.joins.of(entry.stream)
        if isinstance(message, Event):
            join.feedback(entry, message)
        elif isinstance(message, Served):
            if join.serve(entry, message) and message.strategy in self._budgets:
                place, changed = (*order(entry.position), entry.stream), sum(message.explored)
                explored.append(Explored(place, message.strategy, changed, len(message.explored), message.lambda_))
        else:
            if message.request_id is not None:
                join.ignore(entry, message.request_id)
            if message.error is not None:
                outcome.dead_letters.append(_dead_letter(entry, message.error))

    def _learn(self, outcome: Outcome, news: News) -> None:
        self.positions |= news.positions
        self._elsewhere = {} if self.ranks.size == 1 else None
        for one in news.explored:
            self._budgets[one.strategy].observe(one.changed, one.slots, one.lambda_)
        if len(news.item_hash):
            self._impressions.add(news.item_hash)
        if not news.order:
            return
        self._waiting = concatenate(self._waiting, news.examples)
        while self._waiting.rows >= self._batch_size:
            batch, self._waiting = self._waiting.split(self._batch_size)
            self._step(outcome, batch)

    def _step(self, outcome: Outcome, batch: Examples) -> None:
        label = batch.label
        p = self.learner.learn(batch.batch, label, context_row=batch.window)
        weight = self._sampler.weight(label)
        outcome.predictions.append(Predictions(batch.served_ms[batch.window], p, label, weight))
        clicks = batch.click_ms[batch.click_ms != UNCLICKED].tolist()
        outcome.click_times_ms += clicks
        self.data_timestamp_ms = max(self.data_timestamp_ms, *clicks, *batch.time_ms.tolist())


def _digest(learner: Learner) -> bytes:
    """Of every weight."""
    digest = xxh3_128()
    for value in learner.params.values():
        digest.update(value.detach().numpy().data)
    return digest.digest()


def _dead_letter(entry: Entry, error: EventError) -> DeadLetter:
    return dead_letter(stream=entry.stream, position=entry.position, payload=entry.payload, error=error)
