"""Batched as alone: whatever waits together, of any size, strategy and version. On CUDA where there is a device."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
import torch

from models.types import Scores
from service.scoring.engines import SeededNoise
from service.scoring.engines.batching import Batcher
from service.scoring.engines.device import sizes
from service.telemetry import ScorerMetrics

MAX_ROWS, MAX_REQUESTS = 300, 4
Load = Callable[..., Any]  # makes a version


@pytest.fixture
async def batcher(metrics: ScorerMetrics) -> AsyncIterator[Batcher]:
    limits = {"max_rows": MAX_ROWS, "max_requests": MAX_REQUESTS}
    async with Batcher(wait_s=0.002, grace_s=20.0, metrics=metrics, **limits) as batcher:
        yield batcher


async def test_one_alone_at_every_size(strategy: str, batcher: Batcher, load: Load) -> None:
    version = load(3, batcher)
    assert version.engine.batches
    for seed, count in enumerate((300, 1, 127, 128, 129, 700, 300)):  # each finds the rows of another in its slots
        await version.check(strategy, seed, count)


async def test_together_as_alone(batcher: Batcher, metrics: ScorerMetrics, load: Load, strategies: list[str]) -> None:
    """Of all sizes, strategies and two versions at a time."""
    one = load(3, batcher)
    versions = [one, load(4, batcher, previous=one)]
    rng = np.random.default_rng(0)
    checks = [
        versions[number % 2].check(
            strategies[rng.integers(len(strategies))], number, int(rng.choice([1, 7, 60, 150, 301]))
        )
        for number in range(200)
    ]
    await asyncio.gather(*checks)
    sample = metrics.registry.get_sample_value
    batches, requests = sample("agerank_batch_requests_count"), sample("agerank_batch_requests_sum")
    assert batches
    assert requests
    assert batches < 0.7 * requests  # or nothing was tested


async def test_after_a_swap_that_failed_half_way_no_version_is_taken_for_another(batcher: Batcher, load: Load) -> None:
    one = load(3, batcher)
    broken = load(4, batcher, previous=one)
    broken.engine._rankings["greedy"].params["mlp.out.bias"] = torch.zeros(2)
    with pytest.raises(RuntimeError, match="shape"):
        await broken.engine.submit("greedy", *broken.request("greedy", 0, 20))
    await one.check("greedy", 0, 20)


async def test_requests_in_one_batch_keep_their_own_noise(batcher: Batcher, load: Load) -> None:
    """Of the same candidates: only the request's seed tells them apart."""
    version = load(3, batcher)
    base = version.request("age_ts", 0, 60)
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


async def test_under_load_every_answer_is_of_the_version_it_was_asked_of(batcher: Batcher, load: Load) -> None:
    serving, stop = load(0, batcher), False
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
        serving = await asyncio.to_thread(load, version, batcher, serving)
        assert serving.engine._device is device  # nothing is captured again
    stop = True
    await asyncio.gather(*clients)
    assert len(answered) >= 7


async def test_another_architecture_gets_a_device_of_its_own(batcher: Batcher, load: Load) -> None:
    one = load(3, batcher)
    other = load(4, batcher, previous=one, hidden=(9, 8, 7))
    assert other.engine._device is not one.engine._device
    await asyncio.gather(*(version.check("age_ts", 1, 50) for version in (one, other, one, other)))


async def test_without_a_batcher_each_is_answered_alone(load: Load) -> None:
    version = load(3, None)
    assert not version.engine.batches
    await version.check("age_ucb", 1, 40)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("fuse", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's compiler, about torch
async def test_a_gpu_answers_as_a_cpu_and_captures_once(
    batcher: Batcher, fuse: bool, monkeypatch: pytest.MonkeyPatch, load: Load, strategies: list[str]
) -> None:
    capture, graphs = torch.cuda.CUDAGraph, []
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graphs.append(capture()) or graphs[-1])
    version = None
    for number in (3, 4):
        version = load(number, batcher, version, fuse=fuse)
        for strategy in strategies:
            request = version.request(strategy, number, 200)
            found = await version.engine.submit(strategy, *request)
            expected = version.policy(strategy).scores(*request)
            for name, one, other in zip(Scores._fields, found, expected, strict=True):
                np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4, err_msg=f"{strategy}: {name}")
    assert len(graphs) == len(strategies) * len(sizes(MAX_ROWS))
