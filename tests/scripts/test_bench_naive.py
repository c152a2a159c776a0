"""The naive way is a reference: in float64 it says what the models say."""

import numpy as np
import onnxruntime
import pytest
import torch

from models.features import item_hashes
from models.noise import draw
from models.types import Inputs
from scripts.bench.naive import NaiveNetwork, age, full_masks, plain_graph
from scripts.bench.plain import PlainNetwork
from scripts.bench.work import Catalogue, Model, rows


@pytest.fixture(scope="module")
def model() -> Model:
    return Model()


@pytest.fixture(scope="module")
def exact(model: Model) -> NaiveNetwork:
    return NaiveNetwork({name: value.double() for name, value in model.params.items()})


def scores_of_models(model: Model, strategy: str, number: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(the method's own scores in float64, its masks)."""
    request = Catalogue().request(number, count)
    exploration = model.strategies[strategy].exploration
    hashes = item_hashes([one["id"] for one in request["candidates"]])
    seed = np.array([number], dtype=np.uint64)
    drawn = draw(exploration.noise(model.network), request_seed=seed, version=1, item_hash=hashes)
    noise = {name: torch.from_numpy(value).double() for name, value in drawn.items()}
    batch = rows(request)
    tensors = batch._replace(
        context_index=torch.from_numpy(batch.context_index),
        context_weight=torch.from_numpy(batch.context_weight).double(),
        item_index=torch.from_numpy(batch.item_index),
        item_weight=torch.from_numpy(batch.item_weight).double(),
    )
    params = model.network.prepare({name: value.detach().double() for name, value in model.params.items()})
    lambda_ = torch.tensor(model.strategies[strategy].lambda_, dtype=torch.float64)
    inputs = Inputs(tensors, noise, lambda_, torch.zeros(count, dtype=torch.int64))
    with torch.inference_mode():
        return exploration.scores(model.network, params, inputs).score, noise.get("masks", torch.empty(0))


def naive_scores(network: NaiveNetwork, model: Model, strategy: str, number: int, masks: torch.Tensor) -> torch.Tensor:
    batch = rows(Catalogue().request(number, 60))
    context, item = torch.from_numpy(batch.context_index), torch.from_numpy(batch.item_index)
    if strategy == "greedy":
        return network(context, item)
    return age(network, context, item, full_masks(masks, network), model.strategies[strategy].lambda_)


@pytest.mark.parametrize("strategy", ["greedy", "age_ts", "age_ucb"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_it_equals_the_models_in_float64(model: Model, exact: NaiveNetwork, strategy: str, number: int) -> None:
    expected, masks = scores_of_models(model, strategy, number, 60)
    scores = naive_scores(exact, model, strategy, number, masks)
    assert torch.allclose(scores, expected, rtol=0.0, atol=1e-12)


@pytest.mark.parametrize("strategy", ["age_ts", "age_ucb"])
def test_exploration_moves_what_stands_behind_an_open_gate_and_nothing_else(
    model: Model, exact: NaiveNetwork, strategy: str
) -> None:
    _, masks = scores_of_models(model, strategy, 0, 60)
    p = naive_scores(exact, model, "greedy", 0, masks)
    moved = naive_scores(exact, model, strategy, 0, masks) != p
    batch = rows(Catalogue().request(0, 60))
    h = exact.embed(torch.from_numpy(batch.context_index), torch.from_numpy(batch.item_index))
    is_open = p >= exact.threshold(h)
    assert 10 < is_open.sum() < 50
    assert torch.equal(moved, is_open)


def test_masks_of_the_last_layer_leave_the_others_whole(model: Model) -> None:
    network = NaiveNetwork(model.params)
    masks = full_masks(torch.full((3, 1, 64), 0.5), network)
    assert masks.shape == (3, 1, 256 + 128 + 64)
    assert (masks[..., :-64] == 1.0).all()
    assert (masks[..., -64:] == 0.5).all()


def test_the_plain_graph_has_the_weights_in_it_and_says_the_same(model: Model, exact: NaiveNetwork) -> None:
    graph = plain_graph(NaiveNetwork(model.params))
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    assert {one.name for one in session.get_inputs()} == {"context_index", "item_index"}
    plain = PlainNetwork(graph)
    for count in (1, 7, 60):
        batch = rows(Catalogue().request(count, count))
        expected = exact(torch.from_numpy(batch.context_index), torch.from_numpy(batch.item_index))
        found = plain(batch.context_index, batch.item_index)
        assert found.shape == (count,)
        assert np.allclose(found, expected.numpy(), rtol=0.0, atol=1e-6)
