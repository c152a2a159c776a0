"""The benchmark of the trainer: both sides do the same work, and every row is there."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.optimizers import OPTIMIZERS
from models.spec import FeatureSpec
from scripts.bench.bare import BareLoop, BareNetwork
from scripts.bench.traffic import entries
from scripts.bench.train import _batches, _feed
from scripts.bench.work import SPEC
from scripts.cli import app
from service.streams import StreamNames, order

BATCH = 64
NAMES = StreamNames("test", 1)


@pytest.fixture(scope="module")
def log():
    return entries(30, NAMES)


def bare_of(params: dict[str, torch.Tensor]) -> BareNetwork:
    """The rival with the trainer's parameters, and without dropout."""
    tables = [params[f"embedding.{side}_8"] for side in ("context", "item")]
    network = BareNetwork(context=(13, len(tables[0])), item=(12, len(tables[1])), dropout=0.0)
    first = torch.cat([params["mlp.0.context"], params["mlp.0.item"]], dim=1)
    weights = [first, params["mlp.1.weight"], params["mlp.2.weight"], params["mlp.out.weight"][None]]
    biases = [params["mlp.0.bias"], params["mlp.1.bias"], params["mlp.2.bias"], params["mlp.out.bias"][None]]
    weights += [params["gate.0.weight"], params["gate.out.weight"][None]]
    biases += [params["gate.0.bias"], params["gate.out.bias"][None]]
    layers = [one for one in (*network.mlp, *network.gate) if isinstance(one, torch.nn.Linear)]
    targets = [
        network.context.weight,
        network.item.weight,
        *(one.weight for one in layers),
        *(one.bias for one in layers),
    ]
    with torch.no_grad():
        for target, value in zip(targets, [*tables, *weights, *biases], strict=True):
            target.copy_(value)
    return network


def test_the_bare_loop_does_the_trainer_s_work(log) -> None:
    learner = Learner(ClickNetwork(FeatureSpec.from_toml(SPEC), NetworkConfig(dropout=0.0)), learning_rate=1e-3, seed=0)
    rival = bare_of(learner.params)
    batches = _batches(log, BATCH)
    assert len(batches) > 4
    BareLoop(rival, learning_rate=1e-3)(batches)
    assert _feed(log, BATCH, learner).learner.step == len(batches)
    weights = learner.weights()
    for found, name in ((rival.item.weight, "embedding.item_8"), (rival.gate[0].weight, "gate.0.weight")):
        np.testing.assert_allclose(found.detach().numpy(), weights[name], atol=1e-5)
    fresh = ClickNetwork(FeatureSpec.from_toml(SPEC), NetworkConfig()).init(torch.Generator().manual_seed(0))
    assert np.abs(weights["embedding.item_8"] - fresh["embedding.item_8"].numpy()).max() > 1e-3


def test_the_log_is_ordered_and_made_from_the_seed(log) -> None:
    assert [order(one.position) for one in log] == sorted({order(one.position) for one in log})
    assert entries(30, NAMES) == log
    assert entries(30, NAMES, seed=1) != log
    assert {one.stream for one in log} == set(NAMES.inputs)


def test_a_row_for_every_way() -> None:
    command = ["bench", "train", "--runs", "1", "--requests", "200", "--batch-sizes", "512", "--json"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    rows = json.loads(result.stdout)
    assert [row["way"] for row in rows] == ["bare loop", *OPTIMIZERS, "adam, Redis", "publish"]
    assert rows[0]["over_bare"] == 1.0
    assert all(row["examples_per_s"] > 0 and row["batch_size"] == 512 for row in rows[:-1])
    assert all(row["ms"] > 0 for row in rows)


def test_a_log_that_makes_no_batch_is_refused() -> None:
    command = ["bench", "train", "--runs", "1", "--requests", "200", "--batch-sizes", "100000", "--json"]
    result = CliRunner().invoke(app, command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "200 requests do not make a batch of 100000" in result.stderr
