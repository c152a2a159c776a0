"""A small network whose sizes all differ, trained a little so that gradients, masks and the gate are not symmetric."""

import numpy as np
import pytest
import torch

from models.features import Encoder
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.registry import METHODS, beliefs, build
from models.spec import FeatureSpec
from models.types import Batch

SPEC = """
[[fields]]
name = "country"
side = "user"
kind = "categorical"
buckets = 11
width = 3

[[fields]]
name = "interests"
side = "user"
kind = "multi_hot"
buckets = 17
max_values = 4
width = 5

[[fields]]
name = "hour"
side = "context"
kind = "numeric"
mean = 12.0
std = 7.0
width = 3

[[fields]]
name = "id"
side = "item"
kind = "categorical"
source = "id"
buckets = 97
width = 5

[[fields]]
name = "topics"
side = "item"
kind = "multi_hot"
pooling = "sum"
buckets = 13
max_values = 3
width = 2

[[fields]]
name = "price"
side = "item"
kind = "numeric"
width = 2
"""


def request(spec: FeatureSpec, count: int, seed: int) -> tuple[Batch, list[str]]:
    """One request of `count` candidates with random features; also their ids."""
    rng = np.random.default_rng(seed)
    ids = [f"item-{number}" for number in rng.permutation(500)[:count]]
    features = [
        {"topics": [int(one) for one in rng.integers(0, 30, rng.integers(0, 4))], "price": float(rng.normal())}
        for _ in ids
    ]
    user = {"country": f"c{rng.integers(20)}", "interests": [int(one) for one in rng.integers(0, 40, 3)]}
    return Encoder(spec).batch(ids, features, user=user, context={"hour": int(rng.integers(24))}), ids


def rows(batch: Batch) -> Batch:
    """The request as a training batch: its row of context repeated for every candidate."""
    count = len(batch.item_index)
    return batch._replace(
        context_index=np.repeat(batch.context_index, count, 0), context_weight=np.repeat(batch.context_weight, count, 0)
    )


@pytest.fixture(scope="session")
def spec() -> FeatureSpec:
    return FeatureSpec.from_toml(SPEC)


@pytest.fixture(scope="session")
def learner(spec: FeatureSpec) -> Learner:
    """Trained on 60 batches in which half of the items are clicked more often. For 15 every method's beliefs learn."""
    network = ClickNetwork(spec, NetworkConfig(hidden=(23, 14, 9), dropout=0.05, gate_hidden=6, initial_ctr=0.2))
    every = beliefs([build(name, {}) for name in METHODS])
    alone, together = (Learner(network, learning_rate=1e-2, seed=9, beliefs=one) for one in ((), every))
    rng = np.random.default_rng(1)
    for seed in range(60):
        if seed == 45:
            together.restore(alone.weights(), alone.state(), alone.step)
        batch, ids = request(spec, 31, seed)
        rate = np.array([0.1 + 0.3 * (int(one.removeprefix("item-")) % 2) for one in ids])
        (alone if seed < 45 else together).learn(rows(batch), (rng.random(31) < rate).astype(np.float32))
    return together


@pytest.fixture
def network(learner: Learner) -> ClickNetwork:
    return learner.network


@pytest.fixture
def params(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.detach() for name, value in learner.params.items()}


@pytest.fixture
def make_request(spec: FeatureSpec):
    """(count, seed=...) -> (Batch of one request, ids)."""

    def make(count: int, *, seed: int) -> tuple[Batch, list[str]]:
        return request(spec, count, seed)

    return make


@pytest.fixture(scope="session")
def make_training_batch(spec: FeatureSpec):
    """(count, seed=...) -> Batch with C = B rows."""

    def make(count: int, *, seed: int) -> Batch:
        return rows(request(spec, count, seed)[0])

    return make
