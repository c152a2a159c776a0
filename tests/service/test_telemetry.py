"""The instruments: registered where they are told, together or apart, with bounded labels and base units."""

from collections.abc import Callable

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from service.telemetry import ArrayHistogram, ScorerMetrics, TrainerMetrics, scorer
from service.telemetry.kinds import Owed

#: Every label there may be. A new one must be bounded: never an id, a path or a message.
LABELS = {
    "code", "item_age", "kind", "lane", "le", "open", "reason", "result",
    "route", "stage", "status", "strategy", "stream", "type",
}  # fmt: skip


@pytest.mark.parametrize("metrics", [ScorerMetrics, TrainerMetrics])
def test_two_processes_in_one_interpreter_do_not_collide(metrics: Callable[[CollectorRegistry], object]) -> None:
    first, second = CollectorRegistry(), CollectorRegistry()
    metrics(first)
    metrics(second)
    assert first is not second
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        metrics(first)


def test_both_sets_live_in_one_registry() -> None:
    registry = CollectorRegistry()
    ScorerMetrics(registry)
    TrainerMetrics(registry)
    assert b"agerank_requests_in_flight" in generate_latest(registry)
    assert b"agerank_join_pending" in generate_latest(registry)


def test_every_instrument_is_in_the_registry_that_was_given() -> None:
    for metrics in (ScorerMetrics, TrainerMetrics):
        registry = CollectorRegistry()
        instruments = [one for one in vars(metrics(registry)).values() if one is not registry and type(one) is not Owed]
        assert len(list(registry.collect())) == len(instruments) > 10


def test_a_count_is_read_back_by_name_and_labels() -> None:
    registry = CollectorRegistry()
    slices = {"lane": "default", "strategy": "age_ts", "item_age": "new"}
    metrics = TrainerMetrics(registry)
    metrics.predicted_clicks.labels(**slices).inc(0.25)
    metrics.clicks.labels(**slices).inc()
    assert registry.get_sample_value("agerank_predicted_clicks_total", slices) == 0.25
    assert registry.get_sample_value("agerank_clicks_total", slices) == 1.0


def test_names_carry_the_prefix_and_no_scaled_unit(exported: dict[str, set[str]]) -> None:
    for name in exported:
        assert name.startswith("agerank_")
        assert not any(unit in name for unit in ("_ms", "_millis", "_minutes", "_percent", "_kb", "_mb"))


def test_labels_are_those_known_to_be_bounded(exported: dict[str, set[str]]) -> None:
    assert set().union(*exported.values()) == LABELS


@pytest.mark.parametrize("name", [name for name in vars(scorer) if name.endswith("_BUCKETS")])
def test_buckets_rise(name: str) -> None:
    buckets = getattr(scorer, name)
    assert list(buckets) == sorted(set(buckets))


def test_a_ranking_within_its_deadline_is_not_in_the_last_bucket() -> None:
    assert scorer.LATENCY_BUCKETS[-1] > 1.0  # the default deadline_s


def test_what_is_owed_is_counted_before_anything_is_read() -> None:
    registry = CollectorRegistry()
    metrics = ScorerMetrics(registry)
    metrics.owed.count = metrics.slots.labels("default", "greedy").inc
    assert registry.get_sample_value("agerank_slots_total", {"lane": "default", "strategy": "greedy"}) == 1.0
    assert b'agerank_slots_total{lane="default",strategy="greedy"} 2.0' in generate_latest(registry)


def test_a_histogram_of_arrays_counts_as_the_plain_one_does() -> None:
    registry = CollectorRegistry()
    arrays = ArrayHistogram("arrays", "", "kind", buckets=(0.1, 0.5), registry=registry)
    plain = Histogram("plain", "", ["kind"], buckets=(0.1, 0.5), registry=registry)
    for amounts in ([0.05, 0.1, 0.3], [], [0.5, 7.0]):
        arrays.observe("a", np.array(amounts))
        for amount in amounts:
            plain.labels("a").observe(amount)
    for name in ("bucket", "count", "sum"):
        samples = [
            {(one.labels["kind"], one.labels.get("le")): one.value for one in family.samples if one.name.endswith(name)}
            for family in registry.collect()
        ]
        assert samples[0] == samples[1] != {}
