"""Every instrument of both processes. The registry is injected; no label is unbounded; base units.

CTR and PCOC are ratios of counters, divided in PromQL so that they aggregate over processes. Their counters are counted
by the trainer when an attribution window closes, so that numerator and denominator are the same impressions.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from models.types import Array

#: 0.25 ms to 2.5 s: ranking is milliseconds, a stall is what an operator looks for.
LATENCY_BUCKETS = (0.00025, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
FRESHNESS_BUCKETS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
BATCH_ROWS_BUCKETS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
BATCH_REQUESTS_BUCKETS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
CANDIDATE_BUCKETS = (1, 5, 10, 20, 50, 100, 200, 450, 1000, 2000)
UNCERTAINTY_BUCKETS = (1e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3)
STAGES = ("decode", "encode", "score", "respond")


class ArrayHistogram(Collector):
    """A histogram with one label that takes an array at once: Histogram.observe would take a call a candidate."""

    def __init__(
        self, name: str, documentation: str, label: str, *, buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._documentation, self._label = name, documentation, label
        self._bounds = np.array(buckets)
        self._names = [*map(floatToGoString, buckets), "+Inf"]
        self._counts: dict[str, Array] = {}  # label value -> (buckets + 1,) int64
        self._sums: dict[str, float] = {}
        registry.register(self)

    def observe(self, value: str, amounts: Array) -> None:
        """Counts all of `amounts` (n,) under the label value."""
        counts = np.bincount(np.searchsorted(self._bounds, amounts), minlength=len(self._names))
        self._counts[value] = self._counts.get(value, 0) + counts
        self._sums[value] = self._sums.get(value, 0.0) + float(amounts.sum(dtype=np.float64))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self._label])
        for value, counts in self._counts.items():
            buckets = [(name, float(count)) for name, count in zip(self._names, np.cumsum(counts), strict=True)]
            family.add_metric([value], buckets, self._sums[value])
        yield family


class Owed(Collector):
    """Counting that is put off until somebody asks: many things at once are counted in less time than one by one.

    Must be registered before the instruments that it counts on, for they are read in that order.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        #: Counts what is owed so far.
        self.count: Callable[[], None] = lambda: None
        registry.register(self)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        self.count()
        return iter(())


class ScorerMetrics:
    """What the scoring process tells."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.owed = Owed(registry)
        self.requests = Counter("agerank_requests_total", "Requests answered.", ["route", "status"], registry=registry)
        self.latency = Histogram(
            "agerank_request_seconds",
            "Time from a request's arrival to its answer, by route.",
            ["route"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.stage = ArrayHistogram(
            "agerank_rank_stage_seconds",
            "Time of one stage of POST /v1/rank: decode, encode, score, respond.",
            "stage",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.candidates = Histogram(
            "agerank_rank_candidates", "Candidates per request.", buckets=CANDIDATE_BUCKETS, registry=registry
        )
        self.in_flight = Gauge("agerank_requests_in_flight", "Requests being answered.", registry=registry)
        self.shed = Counter("agerank_shed_total", "Requests refused unread, by reason.", ["reason"], registry=registry)
        self.slots = Counter(
            "agerank_slots_total", "Slots filled, by lane and strategy.", ["lane", "strategy"], registry=registry
        )
        self.changed_slots = Counter(
            "agerank_exploration_changed_slots_total",
            "Slots that hold another candidate than greedy would have put there.",
            ["lane", "strategy"],
            registry=registry,
        )
        self.gate = Counter(
            "agerank_gate_total", "Candidates scored, by what the gate said.", ["strategy", "open"], registry=registry
        )
        self.uncertainty = ArrayHistogram(
            "agerank_uncertainty",
            "Absolute prediction uncertainty |dy| of the shown candidates whose gate was open.",
            "strategy",
            buckets=UNCERTAINTY_BUCKETS,
            registry=registry,
        )
        self.delta = ArrayHistogram(
            "agerank_score_delta",
            "Absolute change |score - p_click| of the shown candidates.",
            "strategy",
            buckets=UNCERTAINTY_BUCKETS,
            registry=registry,
        )
        self.batch_rows = Histogram(
            "agerank_batch_rows",
            "Candidates of one batch of the torch engine.",
            buckets=BATCH_ROWS_BUCKETS,
            registry=registry,
        )
        self.batch_requests = Histogram(
            "agerank_batch_requests",
            "Requests of one batch of the torch engine.",
            buckets=BATCH_REQUESTS_BUCKETS,
            registry=registry,
        )
        self.batch_wait = Histogram(
            "agerank_batch_wait_seconds",
            "Time from a request's entry in the torch engine's queue to the start of its batch.",
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.batch_dropped = Counter(
            "agerank_batch_dropped_total",
            "Requests given up in the torch engine's queue, for their deadline or by their caller: never computed.",
            registry=registry,
        )
        self.lambda_ = Gauge("agerank_lambda", "Exploration strength in use.", ["lane", "strategy"], registry=registry)
        self.events = Counter(
            "agerank_events_total", "Events posted, by type and result.", ["type", "result"], registry=registry
        )
        self.served_records = Counter(
            "agerank_served_records_total",
            "Served records by result: written, dropped (the queue was full or the process stopped).",
            ["result"],
            registry=registry,
        )
        self.served_queue = Gauge(
            "agerank_served_queue_entries", "Served records waiting for Redis.", registry=registry
        )
        self.items = Gauge("agerank_items", "Items in the store.", registry=registry)
        self.item_writes = Counter(
            "agerank_item_writes_total",
            "Items put or deleted through this scorer, by result.",
            ["result"],
            registry=registry,
        )
        self.item_updates = Counter(
            "agerank_item_updates_total",
            "Items read from Redis, by result: stored, deleted, or left out: full, misfit, unreadable.",
            ["result"],
            registry=registry,
        )
        self.items_rebuild = Histogram(
            "agerank_items_rebuild_seconds",
            "Time to read all items, by reason: start, trimmed (changes were gone before they were read).",
            ["reason"],
            buckets=FRESHNESS_BUCKETS,
            registry=registry,
        )
        self.items_lag = Gauge(
            "agerank_items_lag_seconds",
            "Between the last change of an item in the store and the newest there is.",
            registry=registry,
        )
        self.log_errors = Counter(
            "agerank_log_errors_total", "Calls of Redis that failed, by reason.", ["reason"], registry=registry
        )
        self.log_up = Gauge("agerank_log_up", "1 while the scorer reaches Redis.", registry=registry)
        self.model = Info("agerank_model", "The version being served.", ["lane"], registry=registry)
        self.model_version = Gauge("agerank_model_version", "Step of the served model.", ["lane"], registry=registry)
        self.model_data_timestamp = Gauge(
            "agerank_model_data_timestamp_seconds",
            "Newest event that the served model contains, Unix time; its age is time() minus this.",
            ["lane"],
            registry=registry,
        )
        self.swaps = Counter(
            "agerank_swaps_total", "Versions swapped in or refused, by result.", ["lane", "result"], registry=registry
        )
        self.swap_seconds = Histogram(
            "agerank_swap_seconds",
            "Load and verification of a version, by kind: full, delta.",
            ["lane", "kind"],
            registry=registry,
        )
        self.event_to_serving = Histogram(
            "agerank_event_to_serving_seconds",
            "From the newest event that a version contains to its being served.",
            ["lane"],
            buckets=FRESHNESS_BUCKETS,
            registry=registry,
        )
        self.click_to_serving = ArrayHistogram(
            "agerank_click_to_serving_seconds",
            "From a click to the first model that learned from it being served.",
            "lane",
            buckets=FRESHNESS_BUCKETS,
            registry=registry,
        )


class TrainerMetrics:
    """What the training process tells."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        by_slice = ["lane", "strategy", "item_age"]
        self.impressions = Counter(
            "agerank_impressions_total", "Impressions whose window closed.", by_slice, registry=registry
        )
        self.clicks = Counter("agerank_clicks_total", "Clicks on those impressions.", by_slice, registry=registry)
        self.predicted_clicks = Counter(
            "agerank_predicted_clicks_total", "Sum of p_click at serving over them.", by_slice, registry=registry
        )
        self.score_sum = Counter(
            "agerank_score_sum_total", "Sum of the exploring score at serving over them.", by_slice, registry=registry
        )
        self.entries = Counter(
            "agerank_stream_entries_total", "Stream entries read, by stream.", ["stream"], registry=registry
        )
        self.lag = Gauge(
            "agerank_stream_lag_entries", "Entries after the trainer's position.", ["stream"], registry=registry
        )
        self.redated = Counter(
            "agerank_stream_redated_total",
            "Entries that had been dated far ahead of the server, and were dated anew.",
            ["stream"],
            registry=registry,
        )
        self.lost = Counter(
            "agerank_stream_lost_total",
            "Times that Redis was found not to hold what it had held: trimmed, emptied, restored.",
            ["stream", "reason"],
            registry=registry,
        )
        self.join = Counter(
            "agerank_join_total",
            "Events by what the join made of them: matched, duplicate, late, ignored, unknown_request, unknown_item; "
            "and impressions evicted.",
            ["result"],
            registry=registry,
        )
        self.join_pending = Gauge(
            "agerank_join_pending", "Impressions waiting for their window to close.", registry=registry
        )
        self.dead_letters = Counter(
            "agerank_dead_letters_total", "Entries set aside, by reason.", ["code"], registry=registry
        )
        self.examples = Counter("agerank_examples_total", "Examples learned from.", registry=registry)
        self.steps = Counter("agerank_steps_total", "Optimiser steps.", registry=registry)
        self.loss = Gauge("agerank_loss", "Log loss of the last batch before learning from it.", registry=registry)
        self.refused = Counter(
            "agerank_trainer_refused_versions_total",
            "Versions passed over at start because they do not verify, by code.",
            ["code"],
            registry=registry,
        )
        self.publishes = Counter(
            "agerank_publishes_total",
            "Versions by result: published; refused by the guard; pinned: another one is; behind: a delta serves that "
            "knows more; failed.",
            ["result"],
            registry=registry,
        )
        self.publish_seconds = Histogram(
            "agerank_publish_seconds", "Time to write a version, by kind: full, delta.", ["kind"], registry=registry
        )
        self.published_bytes = Counter(
            "agerank_published_bytes_total",
            "Bytes written of versions, by kind: full, delta.",
            ["kind"],
            registry=registry,
        )
        self.published_version = Gauge("agerank_published_version", "Step last published.", registry=registry)
        self.log_errors = Counter(
            "agerank_trainer_log_errors_total", "Calls of Redis that failed, by reason.", ["reason"], registry=registry
        )
        self.log_unsafe = Gauge(
            "agerank_trainer_log_unsafe",
            "1 while the server's settings let it lose parts of the log.",
            registry=registry,
        )
        self.guard_refused = Counter(
            "agerank_guard_refused_total", "Versions that the guard kept aside, by reason.", ["code"], registry=registry
        )
        self.guard_refused_in_a_row = Gauge(
            "agerank_guard_refused_in_a_row", "Versions refused since the last one that was not.", registry=registry
        )
        self.guard_pcoc = Gauge(
            "agerank_guard_pcoc", "Predicted over observed clicks of the guard's window.", registry=registry
        )
        self.guard_normalised_entropy = Gauge(
            "agerank_guard_normalised_entropy",
            "Log loss of the guard's window over that of a constant, its click rate.",
            registry=registry,
        )
        self.log_up = Gauge("agerank_trainer_log_up", "1 while the trainer reaches Redis.", registry=registry)
