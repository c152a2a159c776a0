"""What every test starts from: one thread, and no AGERANK_ variable of the person who runs it."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported anywhere: also of every process started here

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from service.telemetry import ArrayHistogram, ScorerMetrics, TrainerMetrics


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AGERANK_")]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def exported() -> dict[str, set[str]]:
    """Every series that either process exports -> its labels, `le` of a bucket among them."""
    registry = CollectorRegistry()
    instruments = [*vars(ScorerMetrics(registry)).values(), *vars(TrainerMetrics(registry)).values()]
    for instrument in instruments:  # a labelled one shows nothing before it has a value
        if isinstance(instrument, MetricWrapperBase) and instrument._labelnames:
            instrument.labels(*instrument._labelnames)
        elif isinstance(instrument, ArrayHistogram):
            instrument.observe("any", np.zeros(1))
    samples = [sample for family in registry.collect() for sample in family.samples]
    return {sample.name: set(sample.labels) for sample in samples if not sample.name.endswith("_created")}
