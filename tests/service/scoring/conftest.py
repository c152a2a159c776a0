"""What the scorer's tests stand on: a real Valkey, real checkpoints, and the app behind a real port."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
import uvicorn

from models.beliefs.belief import fresh, prepare
from models.export import export
from models.features import Encoder
from models.networks.click import ClickNetwork, NetworkConfig
from models.noise import draw, seed_of
from models.policy import Policy
from models.registry import beliefs, build
from models.spec import FeatureSpec
from models.types import Scores
from service import checkpoints
from service.checkpoints import ITEM_HASH, ITEM_IMPRESSIONS, LocalStore, Manifest, ServedStrategy
from service.scoring.app import configuration, create_app
from service.scoring.loading import load
from service.scoring.ranking import Loaded
from service.settings import STRATEGIES, Settings, read

SPEC = """
[[fields]]
name = "country"
side = "user"
kind = "categorical"
buckets = 50

[[fields]]
name = "hour"
side = "context"
kind = "numeric"
mean = 12.0
std = 7.0

[[fields]]
name = "id"
side = "item"
kind = "categorical"
source = "id"
buckets = 200

[[fields]]
name = "topics"
side = "item"
kind = "multi_hot"
buckets = 30
max_values = 3
"""

CONFIG = NetworkConfig(hidden=(16, 8, 4), gate_hidden=4)

Publish = Callable[..., Manifest]
Serving = Callable[..., AbstractContextManager[httpx.Client]]


@pytest.fixture
def settings(redis_url: str, tmp_path: Path) -> Settings:
    """Of a scorer with streams and a data folder of its own."""
    return read(data_dir=tmp_path, redis_url=redis_url, redis_prefix=f"test-{uuid4().hex}", swap_poll_s=0.02, port=0)


@pytest.fixture(scope="session")
def publish() -> Publish:
    """Writes a version as the trainer does."""
    return _publish


def _publish(
    root: Path,
    version: int = 0,
    *,
    lane: str = "default",
    spec: str = SPEC,
    strategies: Mapping[str, Mapping[str, Any]] = STRATEGIES,
    impressions: Mapping[int, int] = MappingProxyType({}),
    click_times_ms: Sequence[int] = (),
    seed: int = 0,
    change: Callable[[dict[str, Any]], None] = lambda parts: None,
    current: bool = True,
) -> Manifest:
    """A version on disk.

    Args:
        impressions: item hash -> count.
        change: spoils the parts of the version before they are saved.
        current: whether current.json shall name it.
    """
    parsed = FeatureSpec.from_toml(spec)
    network = ClickNetwork(parsed, CONFIG)
    learned = beliefs(build(name, options) for name, options in strategies.items())
    params = fresh(network, learned, seed=seed)
    # As if it had learned: a fresh network says nearly the same of all candidates.
    params = {name: value * 10.0 if name.startswith("embedding") else value for name, value in params.items()}
    served, graphs, golden = {}, {}, {}
    for name, options in strategies.items():
        policy = Policy(network, params, build(name, options))
        strategy = policy.strategy
        served[name] = ServedStrategy(
            method=strategy.method,
            options=strategy.options,
            graph=f"{name}.onnx",
            noise=list(policy.noise),
            lambda_=strategy.lambda_,
            budget=strategy.budget,
            uniform_share=strategy.uniform_share,
            propensity_samples=strategy.propensity_samples,
        )
        graphs[name] = _graph(spec, name, json.dumps(options))
        golden |= _golden(policy, version)
    hashes = np.array(sorted(impressions), dtype=np.uint64)
    parts = {
        "manifest": Manifest(
            lane=lane,
            version=version,
            created_at_ms=1_700_000_000_000 + version,
            data_timestamp_ms=1_700_000_000_000 if version else 0,
            spec=spec,
            spec_hash=parsed.hash,
            network=asdict(CONFIG) | {"hidden": list(CONFIG.hidden)},
            strategies=served,
            positions={},
            metrics={"log_loss": 0.2},
            click_times_ms=list(click_times_ms),
        ),
        "weights": {name: value.numpy() for name, value in prepare(network, learned, params).items()}
        | {ITEM_HASH: hashes, ITEM_IMPRESSIONS: np.array([impressions[int(one)] for one in hashes], dtype=np.int64)},
        "golden": golden,
        "graphs": graphs,
    }
    change(parts)
    manifest = checkpoints.save(LocalStore(root), parts.pop("manifest"), **parts, state={}, keep=5)
    if current:
        checkpoints.set_current(LocalStore(root), manifest)
    return manifest


@cache
def _graph(spec: str, name: str, options: str) -> bytes:
    """It does not depend on weights, and takes long."""
    return export(ClickNetwork(FeatureSpec.from_toml(spec), CONFIG), build(name, json.loads(options)))


def _golden(policy: Policy, version: int) -> dict[str, Any]:
    ids = [f"golden-{number}" for number in range(5)]
    batch = Encoder(policy.network.spec).batch(ids, [{} for _ in ids])
    hashes = np.arange(5, dtype=np.uint64)
    noise = draw(policy.noise, request_seed=np.array([1], dtype=np.uint64), version=version, item_hash=hashes)
    impressions = np.zeros(5, dtype=np.int64)
    lambda_ = np.array(policy.strategy.lambda_, dtype=np.float32)
    scores = policy.scores(batch, noise, float(lambda_), impressions)
    given = {**batch._asdict(), **noise, "impressions": impressions, "lambda": lambda_}
    name = policy.strategy.name
    return {f"{name}/in/{field}": value for field, value in given.items()} | {
        f"{name}/out/{field}": value for field, value in zip(Scores._fields, scores, strict=True)
    }


@pytest.fixture(scope="session")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    """A version with a strategy of every kind; item "seen" was shown 4,000 times."""
    root = tmp_path_factory.mktemp("version")
    sampled = {"method": "age", "lambda": 1000.0, "gate": "none", "rate": 0.3, "propensity_samples": 50}
    strategies = STRATEGIES | {"sampled": sampled, "coherent": sampled | {"mask_scope": "version"}}
    _publish(root, 7, strategies=strategies, impressions={seed_of("seen"): 4_000, seed_of("other"): 1})
    return load(LocalStore(root), 7, kind="onnx", threads=1, lane="default", strategies=["greedy"], max_items=100)


@pytest.fixture(scope="session")
def serving() -> Serving:
    """The app of some settings behind a port of its own, as a client of it."""
    return _serving


@contextmanager
def _serving(settings: Settings, *, ready: bool = True) -> Iterator[httpx.Client]:
    config = configuration(create_app(settings), settings)
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10.0) as client:
            if ready:
                until(lambda: client.get("/readyz").json().get("degraded") == [])
            yield client
    finally:
        server.should_exit = True
        thread.join(20.0)


def until(condition: Callable[[], bool], *, within_s: float = 10.0) -> None:
    """Polls."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture(name="until")
def until_fixture() -> Callable[..., None]:
    return until


@pytest.fixture(scope="session")
def metric() -> Callable[[httpx.Client, str], float]:
    """(client, series) -> its value, 0 where there is none yet."""

    def metric(client: httpx.Client, series: str) -> float:
        for line in client.get("/metrics").text.splitlines():
            if line.startswith(series + " "):
                return float(line.rpartition(" ")[2])
        return 0.0

    return metric
