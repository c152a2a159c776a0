"""Versions with a strategy of every kind on the torch engine, and requests for them."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
import torch
from prometheus_client import CollectorRegistry

from models.beliefs.belief import fresh
from models.networks.click import ClickNetwork, NetworkConfig
from models.policy import Policy
from models.registry import beliefs, build
from models.spec import FeatureSpec
from models.types import Array, Batch, Scores
from service.checkpoints import Manifest, ServedStrategy
from service.scoring.engines import SeededNoise
from service.scoring.engines.batching import Batcher, Request
from service.scoring.engines.torch import TorchEngine
from service.telemetry import ScorerMetrics

TOML = """
fields = [
  {name = "country", side = "user", kind = "categorical", buckets = 11, width = 3},
  {name = "interests", side = "user", kind = "multi_hot", buckets = 17, max_values = 4, width = 5},
  {name = "id", side = "item", kind = "categorical", source = "id", buckets = 97, width = 6},
  {name = "story", side = "item", kind = "categorical", buckets = 7, width = 4, group = true},
  {name = "price", side = "item", kind = "numeric", width = 2},
]
"""
SPEC = FeatureSpec.from_toml(TOML)
CONFIG = NetworkConfig(hidden=(13, 11, 7), gate_hidden=5)
STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "random": {},
    "epsilon_greedy": {"epsilon": 0.5},
    "age_ts": {"method": "age", "rate": 0.1, "max_impressions": 5},
    "age_ucb": {"method": "age", "rate": 0.1, "uncertainty": "ucb"},
    "last_layer": {"method": "age", "rate": 0.1, "uncertainty": "ucb", "dropout": "last_layer"},
    "coherent": {"method": "age", "rate": 0.1, "mask_scope": "version"},
    "candidate": {"method": "age", "rate": 0.1, "mask_scope": "candidate", "pgd": "projected", "gate": "none"},
    "new_items": {"method": "age", "uncertainty": "gaussian", "direction": "ones", "novelty": 3.0},
    "ensemble": {"tables": "shared"},
    "guideboot": {"scope": "version"},
    "underestimation": {},
    "plug_ts": {"scope": "request"},
    "gaussian_process": {"uncertainty": "ucb"},
    "deep_ts_beta": {},
    "deep_ucb1": {},
    "count_ucb": {},
    "item_laplace": {"uncertainty": "thompson"},
    "item_posterior": {},
    "ts_blr": {},
}


def weights_of(config: NetworkConfig, seed: int) -> dict[str, Array]:
    """As if learned: candidates differ, and the gate is open for some."""
    network = ClickNetwork(SPEC, config)
    learned = beliefs([build(name, options) for name, options in STRATEGIES.items()])
    params, own = fresh(network, learned, seed=seed), network.init(torch.Generator())
    return {
        name: (value * (10.0 if name.startswith("embedding") else 2.0)).numpy()
        if value.ndim and name in own
        else value.numpy()
        for name, value in params.items()
    }


def manifest_of(config: NetworkConfig, version: int) -> Manifest:
    network, served = ClickNetwork(SPEC, config), {}
    for name, options in STRATEGIES.items():
        one = build(name, options)
        served[name] = ServedStrategy(
            method=one.method,
            options=one.options,
            graph="",
            noise=list(one.exploration.noise(network)),
            lambda_=one.lambda_,
            budget=None,
            uniform_share=None,
            propensity_samples=0,
        )
    return Manifest(
        lane="default",
        version=version,
        created_at_ms=0,
        data_timestamp_ms=0,
        spec=TOML,
        spec_hash=SPEC.hash,
        network=asdict(config),
        strategies=served,
        positions={},
        metrics={},
        click_times_ms=[],
    )


def make_request(manifest: Manifest, strategy: str, seed: int, count: int) -> Request:
    rng = np.random.default_rng(seed)

    def rows(layout: Any, count: int) -> tuple[Array, Array]:
        index = [
            rng.integers(table.rows, size=(count, sum(column.field.slots for column in table.columns)))
            for table in layout.tables
        ]
        return np.concatenate(index, 1).astype(np.int32), rng.random((count, layout.slots), dtype=np.float32)

    hashes = rng.integers(2**64, size=count, dtype=np.uint64)
    request_seed = int(rng.integers(2**64, dtype=np.uint64))
    noise = SeededNoise(
        manifest.strategies[strategy].noise, request_seed=request_seed, version=manifest.version, item_hash=hashes
    )
    batch = Batch(*rows(SPEC.context, 1), *rows(SPEC.item, count))
    return Request(batch, noise, float(rng.random() * 20), rng.integers(10, size=count))


class Version:
    """A version that serves, and what it must answer."""

    def __init__(
        self,
        version: int,
        batcher: Batcher | None,
        previous: "Version | None" = None,
        *,
        hidden: tuple[int, ...] = CONFIG.hidden,
        fuse: bool = False,
    ) -> None:
        config = replace(CONFIG, hidden=hidden)
        self.network = ClickNetwork(SPEC, config)
        self.manifest, self.weights = manifest_of(config, version), weights_of(config, version)
        self.engine = TorchEngine.load(
            self.manifest,
            self.weights,
            threads=1,
            batcher=batcher,
            fuse=fuse,
            previous=previous.engine if previous else None,
        )

    def request(self, strategy: str, seed: int, count: int) -> Request:
        return make_request(self.manifest, strategy, seed, count)

    def policy(self, strategy: str) -> Policy:
        """What ranks without an engine."""
        params = {name: torch.from_numpy(value) for name, value in self.weights.items()}
        return Policy(self.network, params, build(strategy, STRATEGIES[strategy]))

    async def check(self, strategy: str, seed: int, count: int) -> Scores:
        request = self.request(strategy, seed, count)
        found = await self.engine.submit(strategy, *request)
        expected = self.engine.scores(strategy, *request)
        for name, one, other in zip(Scores._fields, found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6, err_msg=f"{strategy}, {count}: {name}")
        return found


@pytest.fixture
def metrics() -> ScorerMetrics:
    return ScorerMetrics(CollectorRegistry())


@pytest.fixture
def load() -> type[Version]:
    return Version


@pytest.fixture
def strategies() -> list[str]:
    return list(STRATEGIES)


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> str:
    return request.param
