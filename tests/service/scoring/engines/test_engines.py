"""Every engine ranks as the policy does: equal within 1e-5 at any batch size, for every method and scope."""

import functools
import gc
import weakref
from dataclasses import asdict

import msgspec
import numpy as np
import pytest

from models.exploration.age import Age
from models.export import export
from models.features import Encoder, item_hashes
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.noise import draw
from models.policy import Policy
from models.registry import METHODS, beliefs, build
from models.spec import FeatureSpec
from service.checkpoints import FORMAT, Manifest, ServedStrategy
from service.errors import CheckpointError
from service.scoring import engines
from service.scoring.engines.kernel import LIBRARY

SPEC = """
[[fields]]
name = "interests"
side = "user"
kind = "multi_hot"
buckets = 17
max_values = 4
width = 5

[[fields]]
name = "id"
side = "item"
kind = "categorical"
source = "id"
buckets = 97
width = 6
"""
STRATEGIES = {name: {} for name in METHODS} | {
    "epsilon_decays": {"method": "epsilon_greedy", "horizon": 5_000},
    "epsilon_counts": {"method": "epsilon_greedy", "estimate": "counts"},
    "ensemble_ucb": {"method": "ensemble", "uncertainty": "ucb"},
    "gradient_ucb": {"method": "gradient", "uncertainty": "ucb"},
    "gradient_norm": {"method": "gradient", "covariance": "none", "layers": "last"},
    "plug_ts_request": {"method": "plug_ts", "scope": "request"},
    "gp_ucb": {"method": "gaussian_process", "uncertainty": "ucb"},
    "mc_dropout_ucb": {"method": "mc_dropout", "uncertainty": "ucb", "dropout": "full", "novelty": 50.0},
    "age_ts": {"method": "age", "rate": 0.1},
    "age_ucb": {"method": "age", "rate": 0.1, "uncertainty": "ucb"},
    "hybrid": {"method": "age", "rate": 0.1, "uncertainty": "ucb", "dropout": "last_layer", "mask_scope": "version"},
    "candidate": {"method": "age", "rate": 0.1, "mask_scope": "candidate", "pgd": "projected", "max_impressions": 7},
    "fgm": {"method": "age", "rate": 0.1, "direction": "fgm", "gate": "fixed", "gate_threshold": 0.2},
    "no_gate": {"method": "age", "rate": 0.1, "steps": 5, "gate": "none"},
}
#: The options of AGE that the kernel leaves to onnxruntime.
RARE = {
    "gaussian": {"method": "age", "uncertainty": "gaussian", "direction": "fgm"},
    "ones": {"method": "age", "rate": 0.1, "direction": "ones", "gate": "none"},
    "novelty": {"method": "age", "rate": 0.1, "novelty": 10.0, "pgd": "projected"},
}
STRATEGIES |= RARE

COMPILED = pytest.mark.skipif(not LIBRARY.exists(), reason="no C compiler when the project was installed")
KINDS = ["onnx", "torch", pytest.param("native", marks=COMPILED)]


@pytest.fixture(scope="module")
def learner():
    network = ClickNetwork(FeatureSpec.from_toml(SPEC), NetworkConfig(hidden=(13, 11, 7), initial_ctr=0.2))
    every = beliefs([build(name, {}) for name in METHODS])
    learner = Learner(network, learning_rate=1e-2, seed=1, beliefs=every)
    rng = np.random.default_rng(0)
    for _ in range(40):
        batch, ids = request(network.spec, 29, rng)
        rate = np.array([0.05 + 0.4 * (int(one) % 3 == 0) for one in ids])
        batch = batch._replace(
            context_index=np.repeat(batch.context_index, 29, 0), context_weight=np.repeat(batch.context_weight, 29, 0)
        )
        learner.learn(batch, (rng.random(29) < rate).astype(np.float32))
    return learner


def request(spec, count, rng):
    ids = [str(one) for one in rng.permutation(300)[:count]]
    return Encoder(spec).batch(ids, [None] * count, user={"interests": rng.integers(0, 40, 3).tolist()}), ids


@pytest.fixture(scope="module")
def strategies():
    return {name: build(name, options) for name, options in STRATEGIES.items()}


@pytest.fixture(scope="module")
def graphs(learner, strategies):
    return {name: export(learner.network, strategy) for name, strategy in strategies.items()}


@pytest.fixture(scope="module")
def manifest(learner, strategies):
    return Manifest(
        format=FORMAT,
        lane="default",
        version=learner.step,
        created_at_ms=0,
        data_timestamp_ms=0,
        spec=SPEC,
        spec_hash=learner.network.spec.hash,
        network=asdict(learner.network.config),
        strategies={
            name: ServedStrategy(
                method=one.method,
                options=one.options,
                graph=f"{name}.onnx",
                noise=list(one.exploration.noise(learner.network)),
                lambda_=one.lambda_,
                budget=one.budget,
                uniform_share=one.uniform_share,
                propensity_samples=0,
            )
            for name, one in strategies.items()
        },
        positions={},
        metrics={},
        click_times_ms=[],
        files={},
    )


def load(kind, manifest, graphs, weights, **rest):
    return engines.load(kind, manifest=manifest, graphs=graphs, weights=weights, **rest)


@pytest.fixture(scope="module")
def engine_of(learner, manifest, graphs):
    """kind -> an engine, loaded once."""
    return functools.cache(lambda kind: load(kind, manifest, graphs, learner.prepared()))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("kind", KINDS)
def test_equals_the_policy_at_every_batch_size(kind, strategy, learner, strategies, engine_of):
    engine = engine_of(kind)
    params = {name: value.detach() for name, value in learner.params.items()}
    policy = Policy(learner.network, params, strategies[strategy])
    for count, lambda_ in ((1, 2.0), (19, 5.0), (38, 0.0)):
        batch, ids = request(learner.network.spec, count, np.random.default_rng(count))
        noise = draw(
            policy.noise, request_seed=np.array([count], dtype=np.uint64), version=9, item_hash=item_hashes(ids)
        )
        impressions = np.arange(count)
        found = engine.scores(strategy, batch, noise, lambda_, impressions)
        expected = policy.scores(batch, noise, lambda_, impressions)
        for name, one, other in zip(found._fields, found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=f"{name} at B = {count}")
        if lambda_ == 0.0 and STRATEGIES[strategy].get("method") == "age":
            assert np.array_equal(found.score, found.p_click)


def test_new_weights_run_through_the_same_sessions(learner, manifest, graphs):
    first = load("onnx", manifest, graphs, learner.prepared())
    moved = {name: np.asarray(value + np.float32(0.01)) for name, value in learner.prepared().items()}
    second = load("onnx", manifest, graphs, moved, previous=first)
    assert second._sessions == first._sessions
    batch, _ = request(learner.network.spec, 5, np.random.default_rng(0))
    impressions = np.zeros(5, dtype=np.int64)
    before = first.scores("greedy", batch, {}, 0.0, impressions)
    after = second.scores("greedy", batch, {}, 0.0, impressions)
    fresh = load("onnx", manifest, graphs, moved).scores("greedy", batch, {}, 0.0, impressions)
    assert np.array_equal(after.score, fresh.score)
    assert not np.array_equal(after.score, before.score)
    # The old version keeps its own weights as long as a request holds it.
    assert np.array_equal(first.scores("greedy", batch, {}, 0.0, impressions).score, before.score)


def test_weights_live_as_long_as_their_engine(learner, manifest, graphs):
    """Newer onnxruntimes keep what is bound to them, 1.20 does not."""
    given = {name: value.copy() for name, value in learner.prepared().items()}
    alive = [weakref.ref(value) for value in given.values()]
    engine = load("onnx", manifest, graphs, given)
    del given
    for ranking in engine._rankings.values():
        getattr(ranking.binding, "_bound_inputs", {}).clear()
    gc.collect()
    assert all(one() is not None for one in alive)


@pytest.mark.parametrize("kind", KINDS)
def test_refuses_weights_of_another_shape(kind, learner, manifest, graphs):
    weights = learner.prepared()
    for changed in ({**weights, "mlp.1.weight": weights["mlp.1.weight"].T}, weights | {"mlp.1.weight": None}):
        given = {name: value for name, value in changed.items() if value is not None}
        with pytest.raises(CheckpointError, match=r"mlp.1.weight") as caught:
            load(kind, manifest, graphs, given)
        assert caught.value.code == "shape_mismatch"


@COMPILED
@pytest.mark.parametrize(
    "options", [{"steps": 3}, {**asdict(Age()), "momentum": 0.9}, {**asdict(Age()), "gate": "open"}]
)
def test_native_takes_only_options_that_it_knows(options, learner, manifest, graphs):
    served = msgspec.structs.replace(manifest.strategies["age_ts"], options=options)
    other = msgspec.structs.replace(manifest, strategies={"age_ts": served})
    with pytest.raises(CheckpointError, match="age_ts") as caught:
        load("native", other, graphs, learner.prepared())
    assert caught.value.code == "unknown_options"


@COMPILED
def test_native_leaves_other_methods_to_sessions_that_stay(learner, manifest, graphs):
    first = load("native", manifest, graphs, learner.prepared())
    second = load("native", manifest, graphs, learner.prepared(), previous=first)
    assert not first.batches
    ours = {name for name, one in STRATEGIES.items() if one.get("method", name) in ("age", "greedy")} - RARE.keys()
    assert first._others._rankings.keys() == STRATEGIES.keys() - ours
    assert first._methods.keys() | first._greedy == ours
    assert second._others._sessions == first._others._sessions


def test_refuses_a_broken_graph(learner, manifest, graphs):
    with pytest.raises(CheckpointError) as caught:
        load("onnx", manifest, {"greedy": graphs["greedy"][:-30]}, learner.prepared())
    assert caught.value.code == "unreadable_graph"


def test_a_graph_does_not_depend_on_the_weights(learner, strategies, graphs):
    assert export(learner.network, strategies["age_ucb"]) == graphs["age_ucb"]
