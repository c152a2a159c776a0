"""What rankings are counted as: many at once, when there are many or somebody asks. A request has no time for it."""

import time
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from service.scoring.ranking import Ranking
from service.telemetry import STAGES, ScorerMetrics

_MOST = 64  # rankings that are kept to be counted


class Tally:
    """Counts the rankings of one lane."""

    def __init__(self, lane: str, metrics: ScorerMetrics) -> None:
        self._lane, self._metrics = lane, metrics
        self._kept: defaultdict[str, list[_Ranked]] = defaultdict(list)  # strategy -> not counted yet
        self._waiting = 0
        metrics.owed.count = self._count

    def ranked(self, strategy: str, ranking: Ranking, stages: "Stages") -> None:
        """Notes one answer."""
        self._kept[strategy].append(_Ranked(ranking, stages))
        self._waiting += 1
        if self._waiting >= _MOST:
            self._count()

    def _count(self) -> None:
        kept, self._waiting = dict(self._kept), 0
        self._kept.clear()
        for strategy, ranked in kept.items():
            self._count_rankings(strategy, [one.ranking for one in ranked])
        stages = [one.stages.seconds for ranked in kept.values() for one in ranked]
        for name, seconds in zip(STAGES, zip(*stages, strict=True), strict=False):
            self._metrics.stage.observe(name, np.array(seconds))

    def _count_rankings(self, strategy: str, rankings: list[Ranking]) -> None:
        metrics, labels = self._metrics, (self._lane, strategy)
        for ranking in rankings:
            metrics.candidates.observe(len(ranking.scores.score))
        gates = np.concatenate([one.scores.gate_open for one in rankings])
        explored = np.concatenate([one.slate.explored for one in rankings])
        is_open, changed = int(gates.sum()), int(explored.sum())
        metrics.slots.labels(*labels).inc(len(explored))
        metrics.changed_slots.labels(*labels).inc(changed)
        metrics.gate.labels(strategy, "true").inc(is_open)
        metrics.gate.labels(strategy, "false").inc(len(gates) - is_open)
        can_explore = np.concatenate([one.scores.gate_open[one.slate.order] for one in rankings]) > 0
        uncertainty = np.concatenate([one.scores.uncertainty[one.slate.order] for one in rankings])[can_explore]
        delta = np.concatenate([(one.scores.score - one.scores.p_click)[one.slate.order] for one in rankings])
        metrics.uncertainty.observe(strategy, np.abs(uncertainty))
        metrics.delta.observe(strategy, np.abs(delta))


class Stages:
    """The time that each stage of one request takes, from when this is made."""

    def __init__(self) -> None:
        self._started = self._last = time.perf_counter()
        self.seconds: list[float] = []  # in the order of telemetry.STAGES

    def end(self) -> None:
        """The next begins."""
        now = time.perf_counter()
        self.seconds.append(now - self._last)
        self._last = now

    @property
    def so_far_ms(self) -> float:
        return round((time.perf_counter() - self._started) * 1e3, 3)


class _Ranked(NamedTuple):
    ranking: Ranking
    stages: Stages
