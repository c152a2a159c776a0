"""What rankings are counted as. Every child of an instrument is looked up once: a request has no time for it."""

import time
from typing import NamedTuple

import numpy as np
from prometheus_client import Counter, Histogram

from service.scoring.ranking import Ranking
from service.telemetry import STAGES, ScorerMetrics


class _Counters(NamedTuple):
    """Of one strategy."""

    slots: Counter
    changed: Counter
    gate_open: Counter
    gate_shut: Counter


class Tally:
    """Counts the rankings of one lane."""

    def __init__(self, lane: str, metrics: ScorerMetrics) -> None:
        self._lane, self._metrics = lane, metrics
        self._stages = {name: metrics.stage.labels(name) for name in STAGES}
        self._counters: dict[str, _Counters] = {}  # as many as strategies were served

    def stages(self) -> "Stages":
        """A clock for one request."""
        return Stages(self._stages)

    def ranked(self, strategy: str, ranking: Ranking) -> None:
        """Counts one answer."""
        metrics, scores, slate = self._metrics, ranking.scores, ranking.slate
        counters = self._counters.get(strategy) or self._begin(strategy)
        count, is_open = len(scores.gate_open), int(scores.gate_open.sum())
        metrics.candidates.observe(count)
        counters.slots.inc(len(slate.order))
        counters.changed.inc(int(slate.explored.sum()))
        counters.gate_open.inc(is_open)
        counters.gate_shut.inc(count - is_open)
        metrics.uncertainty.observe(strategy, np.abs(scores.uncertainty[slate.order]))
        metrics.delta.observe(strategy, np.abs((scores.score - scores.p_click)[slate.order]))

    def _begin(self, strategy: str) -> _Counters:
        metrics, lane = self._metrics, self._lane
        counters = self._counters[strategy] = _Counters(
            metrics.slots.labels(lane, strategy),
            metrics.changed_slots.labels(lane, strategy),
            metrics.gate.labels(strategy, "true"),
            metrics.gate.labels(strategy, "false"),
        )
        return counters


class Stages:
    """The time that each stage of one request takes, from when this is made."""

    def __init__(self, stages: dict[str, Histogram]) -> None:
        self._stages = stages
        self._started = self._last = time.perf_counter()

    def end(self, stage: str) -> None:
        """Now `stage` is over, and the next begins."""
        now = time.perf_counter()
        self._stages[stage].observe(now - self._last)
        self._last = now

    @property
    def so_far_ms(self) -> float:
        return round((time.perf_counter() - self._started) * 1e3, 3)
