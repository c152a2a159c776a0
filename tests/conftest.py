"""What every test starts from: one thread, one width of terminal, and nobody's AGERANK_ variables."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported anywhere: also of every process started here

import logging
from collections.abc import Iterator
from uuid import uuid4

import hypothesis
import numpy as np
import pytest
import redis
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

from service.connections import connect
from service.streams import StreamNames
from service.telemetry import ArrayHistogram, ScorerMetrics, TrainerMetrics
from service.valkey import EmbeddedServer

# No test asserts a time: on a busy machine an example may take as long as it likes.
hypothesis.settings.register_profile("agerank", deadline=None)
hypothesis.settings.load_profile("agerank")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "240")  # so that no message is broken within a path
    for name in [name for name in os.environ if name.startswith("AGERANK_")]:
        monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """A command run within a test sends the log to what stands for stderr then; the next test must not write there."""
    handlers, level = logging.root.handlers[:], logging.root.level
    # A traceback with all variables in colour, which is the default, takes a second.
    renderer = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], renderer])
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.fixture(scope="session")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """A real server, for all tests; each takes streams of its own."""
    with EmbeddedServer(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_url(valkey: EmbeddedServer) -> str:
    return valkey.url


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with connect(redis_url, name="test") as client:
        yield client


@pytest.fixture
def names() -> StreamNames:
    return StreamNames(f"test-{uuid4().hex}", partitions=2)


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
