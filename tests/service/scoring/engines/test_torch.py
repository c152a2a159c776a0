"""Batched as alone: whatever waits together, of any size, strategy and version. On CUDA where there is a device."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
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
from service.scoring.engines.device import sizes
from service.scoring.engines.torch import TorchEngine
from service.telemetry import ScorerMetrics

TOML = """
fields = [
  {name = "country", side = "user", kind = "categorical", buckets = 11, width = 3},
  {name = "interests", side = "user", kind = "multi_hot", buckets = 17, max_values = 4, width = 5},
  {name = "id", side = "item", kind = "categorical", source = "id", buckets = 97, width = 6},
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
    "ts_blr": {},
}
MAX_ROWS, MAX_REQUESTS = 300, 4


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
        config: NetworkConfig = CONFIG,
        fuse: bool = False,
    ) -> None:
        self.manifest, self.weights = manifest_of(config, version), weights_of(config, version)
        self.engine = TorchEngine.load(
            self.manifest,
            self.weights,
            threads=1,
            batcher=batcher,
            fuse=fuse,
            previous=previous.engine if previous else None,
        )

    async def check(self, strategy: str, seed: int, count: int) -> Scores:
        request = make_request(self.manifest, strategy, seed, count)
        found = await self.engine.submit(strategy, *request)
        expected = self.engine.scores(strategy, *request)
        for name, one, other in zip(Scores._fields, found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6, err_msg=f"{strategy}, {count}: {name}")
        return found


@pytest.fixture
def metrics() -> ScorerMetrics:
    return ScorerMetrics(CollectorRegistry())


@pytest.fixture
async def batcher(metrics: ScorerMetrics) -> AsyncIterator[Batcher]:
    limits = {"max_rows": MAX_ROWS, "max_requests": MAX_REQUESTS}
    async with Batcher(wait_s=0.002, grace_s=20.0, metrics=metrics, **limits) as batcher:
        yield batcher


@pytest.mark.parametrize("strategy", STRATEGIES)
async def test_one_alone_at_every_size(strategy: str, batcher: Batcher) -> None:
    version = Version(3, batcher)
    assert version.engine.batches
    for seed, count in enumerate((300, 1, 127, 128, 129, 700, 300)):  # each finds the rows of another in its slots
        await version.check(strategy, seed, count)


async def test_together_as_alone(batcher: Batcher, metrics: ScorerMetrics) -> None:
    """Of all sizes, strategies and two versions at a time."""
    one = Version(3, batcher)
    versions = [one, Version(4, batcher, previous=one)]
    rng = np.random.default_rng(0)
    names = list(STRATEGIES)
    checks = [
        versions[number % 2].check(names[rng.integers(len(names))], number, int(rng.choice([1, 7, 60, 150, 301])))
        for number in range(200)
    ]
    await asyncio.gather(*checks)
    sample = metrics.registry.get_sample_value
    batches, requests = sample("agerank_batch_requests_count"), sample("agerank_batch_requests_sum")
    assert batches
    assert requests
    assert batches < 0.7 * requests  # or nothing was tested


async def test_after_a_swap_that_failed_half_way_no_version_is_taken_for_another(batcher: Batcher) -> None:
    one = Version(3, batcher)
    broken = Version(4, batcher, previous=one)
    broken.engine._rankings["greedy"].params["mlp.out.bias"] = torch.zeros(2)
    with pytest.raises(RuntimeError, match="shape"):
        await broken.engine.submit("greedy", *make_request(broken.manifest, "greedy", 0, 20))
    await one.check("greedy", 0, 20)


async def test_requests_in_one_batch_keep_their_own_noise(batcher: Batcher) -> None:
    """Of the same candidates: only the request's seed tells them apart."""
    version = Version(3, batcher)
    base = make_request(version.manifest, "age_ts", 0, 60)
    seeds = (1, 2**64 - 1, 2**63)
    requests = [
        base._replace(
            noise=SeededNoise(base.noise.inputs, request_seed=seed, version=3, item_hash=base.noise.item_hash)
        )
        for seed in seeds
    ]
    found = await asyncio.gather(*(version.engine.submit("age_ts", *one) for one in requests))
    for one, other in zip(found, [*found[1:], found[0]], strict=True):
        assert not np.allclose(one.uncertainty, other.uncertainty)
    for one, request in zip(found, requests, strict=True):
        expected = version.engine.scores("age_ts", *request)
        np.testing.assert_allclose(one.uncertainty, expected.uncertainty, atol=1e-6)


async def test_under_load_every_answer_is_of_the_version_it_was_asked_of(batcher: Batcher) -> None:
    serving, stop = Version(0, batcher), False
    device = serving.engine._device
    answered: Counter[int] = Counter()

    async def client(number: int) -> None:
        seed = number
        while not stop:
            seed += 1_000
            version = serving  # read once, as the ranker does
            await version.check("age_ucb", seed, 20 + number)
            answered[version.manifest.version] += 1

    clients = [asyncio.create_task(client(number)) for number in range(6)]
    for version in range(1, 8):
        while answered[serving.manifest.version] < 5:
            await asyncio.sleep(0.001)
        serving = await asyncio.to_thread(Version, version, batcher, serving)
        assert serving.engine._device is device  # nothing is captured again
    stop = True
    await asyncio.gather(*clients)
    assert len(answered) >= 7


async def test_another_architecture_gets_a_device_of_its_own(batcher: Batcher) -> None:
    one = Version(3, batcher)
    other = Version(4, batcher, previous=one, config=replace(CONFIG, hidden=(9, 8, 7)))
    assert other.engine._device is not one.engine._device
    await asyncio.gather(*(version.check("age_ts", 1, 50) for version in (one, other, one, other)))


async def test_without_a_batcher_each_is_answered_alone() -> None:
    version = Version(3, None)
    assert not version.engine.batches
    await version.check("age_ucb", 1, 40)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("fuse", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, about torch
async def test_a_gpu_answers_as_a_cpu_and_captures_once(
    batcher: Batcher, fuse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture, graphs = torch.cuda.CUDAGraph, []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graphs.append(capture()) or graphs[-1])
    version = None
    for number in (3, 4):
        version = Version(number, batcher, version, fuse=fuse)
        network = ClickNetwork(SPEC, CONFIG)
        params = {name: torch.from_numpy(value) for name, value in version.weights.items()}
        for strategy, options in STRATEGIES.items():
            request = make_request(version.manifest, strategy, number, 200)
            found = await version.engine.submit(strategy, *request)
            expected = Policy(network, params, build(strategy, options)).scores(*request)
            for name, one, other in zip(Scores._fields, found, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4, err_msg=f"{strategy}: {name}")
    assert len(graphs) == len(STRATEGIES) * len(sizes(MAX_ROWS))
