"""The compiled kernel against the method's own code in float64, which test_age holds to autograd. On every path."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from models.exploration.age import Age
from models.networks.click import ClickNetwork, NetworkConfig, tensors
from models.noise import draw
from models.spec import FeatureSpec
from models.types import Array, Batch, Inputs, Scores
from service.errors import CheckpointError
from service.scoring.engines import kernel
from service.scoring.engines.kernel import Kernel
from service.scoring.engines.native import method

if not kernel.LIBRARY.exists():
    pytest.skip("the kernel was not compiled: no C compiler when the project was installed", allow_module_level=True)
PATHS = range(kernel.library().age_best() + 1)
LAMBDA = 3.0
SPECS = {
    "mixed": """fields = [
      {name = "country", side = "user", kind = "categorical", buckets = 11, width = 3},
      {name = "hour", side = "context", kind = "numeric", width = 3},
      {name = "interests", side = "user", kind = "multi_hot", buckets = 17, max_values = 4, width = 5},
      {name = "id", side = "item", kind = "categorical", buckets = 97, width = 6},
      {name = "topics", side = "item", kind = "multi_hot", buckets = 13, max_values = 3, width = 2},
      {name = "price", side = "item", kind = "numeric", width = 2},
      {name = "shop", side = "item", kind = "categorical", buckets = 5, width = 2},
    ]""",
    "no_context": """fields = [{name = "id", side = "item", kind = "categorical", buckets = 97, width = 7}]""",
    "wide": """fields = [
      {name = "country", side = "user", kind = "categorical", buckets = 11, width = 70},
      {name = "id", side = "item", kind = "categorical", buckets = 97, width = 37},
    ]""",
}
HIDDEN = [(23, 14, 9), (5,), (1, 1), (70, 33, 16, 8), (9, 8, 7, 6, 5, 6, 7, 8), (256, 128, 64)]
VARIANTS: dict[str, dict[str, Any]] = {
    "thompson_fgm": {"direction": "fgm"},
    **{f"literal_{steps}": {"steps": steps} for steps in range(1, 6)},
    **{f"projected_{steps}": {"pgd": "projected", "steps": steps} for steps in range(1, 6)},
    "ucb": {"uncertainty": "ucb"},
    "ucb_candidate": {"uncertainty": "ucb", "draws": 6, "pgd": "projected", "mask_scope": "candidate"},
    "ucb_last_layer": {"uncertainty": "ucb", "dropout": "last_layer"},
    "ucb_last_layer_candidate": {"uncertainty": "ucb", "dropout": "last_layer", "mask_scope": "candidate"},
    "last_layer_version": {"dropout": "last_layer", "mask_scope": "version"},
    "candidate": {"mask_scope": "candidate"},
    "version": {"mask_scope": "version"},
    "fixed_gate": {"gate": "fixed", "gate_threshold": 0.38},
    "no_gate": {"gate": "none"},
    "new_items": {"gate": "none", "max_impressions": 9},
}


class Case(NamedTuple):
    """A network as if it had learned, and a request for it."""

    network: ClickNetwork
    params: dict[str, torch.Tensor]
    batch: Batch
    impressions: Array

    def kernel(self, path: int | None = None) -> Kernel:
        weights = {name: value.numpy() for name, value in self.network.prepare(self.params).items()}
        return Kernel(self.network.spec, self.network.config.hidden, weights, path=path)

    def masks(self, age: Age) -> Array:
        hashes = np.arange(len(self.batch.item_index), dtype=np.uint64)
        seed = np.array([5], dtype=np.uint64)
        return draw(age.noise(self.network), request_seed=seed, version=7, item_hash=hashes)["masks"]

    def found(self, age: Age, path: int | None = None, lambda_: float = LAMBDA) -> Scores:
        masks = self.masks(age)
        return self.kernel(path).scores(method(asdict(age)), self.batch, masks, lambda_, self.impressions)

    def expected(self, age: Age, lambda_: float = LAMBDA) -> Scores:
        """In float64."""
        params = self.network.prepare({name: value.double() for name, value in self.params.items()})
        batch = Batch(*(one.double() if one.is_floating_point() else one for one in tensors(self.batch)))
        noise = {"masks": torch.from_numpy(self.masks(age)).double()}
        inputs = Inputs(batch, noise, torch.tensor(lambda_).double(), torch.from_numpy(self.impressions))
        return Scores(*(one.numpy() for one in age.scores(self.network, params, inputs)))

    def check(self, age: Age, path: int | None = None) -> Scores:
        found, expected = self.found(age, path), self.expected(age)
        for name, one, other in zip(Scores._fields, found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6, err_msg=name)
        return found


@cache
def case(count: int = 75, spec: str = "mixed", hidden: tuple[int, ...] = (23, 14, 9)) -> Case:
    parsed = FeatureSpec.from_toml(SPECS[spec])
    network = ClickNetwork(parsed, NetworkConfig(hidden=hidden, gate_hidden=6, initial_ctr=0.2))
    rng = np.random.default_rng(count)

    def rows(layout: Any, count: int) -> tuple[Array, Array]:
        slots = [(table.rows, sum(column.field.slots for column in table.columns)) for table in layout.tables]
        index = [rng.integers(rows, size=(count, columns)) for rows, columns in slots]
        weight = rng.normal(size=(count, layout.slots)).astype(np.float32)
        return np.concatenate([np.empty((count, 0)), *index], 1).astype(np.int32), weight

    params = network.init(torch.Generator().manual_seed(3))
    scales = {"embedding": 10.0, "mlp": 1.2, "gate": 3.0}
    params = {name: value * scales[name.split(".")[0]] for name, value in params.items()}
    params["mlp.out.weight"] *= 5.0
    batch = Batch(*rows(parsed.context, 1), *rows(parsed.item, count))
    if count:  # the gate shall be open for some of them
        _, item = network.embed(params, tensors(batch))
        params["gate.out.bias"] = (
            params["gate.out.bias"] + (network.logit(params, tensors(batch)) - network.gate(params, item)[:, 0]).mean()
        )
    return Case(network, params, batch, np.arange(count, dtype=np.int64))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("count", [1, 75])
def test_plain_is_the_prediction_and_nothing_else(count: int, hidden: tuple[int, ...], path: int) -> None:
    one = case(count, hidden=hidden)
    scores, explored = one.kernel(path).plain(one.batch), one.found(Age(rate=0.1), path)
    np.testing.assert_allclose(scores.p_click, one.expected(Age(rate=0.1)).p_click, rtol=1e-5, atol=1e-6)
    assert np.array_equal(scores.p_click, explored.p_click), "f(h) is the same to the bit, whoever asks"
    assert np.array_equal(scores.score, scores.p_click)
    assert not any(column.any() for column in scores[2:])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_method_in_float64(variant: str, path: int) -> None:
    scores = case().check(Age(rate=0.1, **VARIANTS[variant]), path)
    assert np.any(scores.score != scores.p_click), "the case explores nothing"
    assert VARIANTS[variant].get("gate") == "none" or 0 < scores.gate_open.sum() < 75


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("hidden", HIDDEN, ids=str)
@pytest.mark.parametrize("spec", SPECS)
def test_networks_of_any_shape(spec: str, hidden: tuple[int, ...], path: int) -> None:
    for options in ({}, {"uncertainty": "ucb", "pgd": "projected", "mask_scope": "candidate"}):
        case(40, spec, hidden).check(Age(rate=0.1, gate="none", **options), path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("variant", ["literal_3", "projected_3", "ucb", "ucb_last_layer", "candidate", "ucb_candidate"])
def test_a_candidate_has_the_same_bits_in_any_company(variant: str, path: int) -> None:
    every, age = case(450), Age(rate=0.1, **VARIANTS[variant])
    masks, packed = every.masks(age), every.kernel(path)

    def scores(rows: Array) -> Scores:
        batch = every.batch._replace(item_index=every.batch.item_index[rows], item_weight=every.batch.item_weight[rows])
        mask = masks[:, rows] if age.mask_scope == "candidate" else masks
        return packed.scores(method(asdict(age)), batch, mask, LAMBDA, every.impressions[rows])

    whole = scores(np.arange(450))
    alone = [np.array([row]) for row in range(25)]
    some = [np.random.default_rng(count).permutation(450)[:count] for count in (2, 7, 63, 64, 65, 72, 73, 145, 450)]
    for rows in alone + some:
        for one, other in zip(scores(rows), whole, strict=True):
            assert np.array_equal(one, other[rows])


@pytest.mark.parametrize("path", PATHS)
def test_without_a_step_the_score_is_the_prediction_to_the_bit(path: int) -> None:
    for options, lambda_ in (
        ({"gate": "fixed", "gate_threshold": 1.1}, LAMBDA),
        ({"gate": "none", "max_impressions": 0}, LAMBDA),
        ({"gate": "none"}, 0.0),
    ):
        scores = case().found(Age(**options), path, lambda_)
        assert np.array_equal(scores.score, scores.p_click)
        assert np.array_equal(scores.uncertainty != 0, scores.gate_open * (scores.uncertainty != 0))
        assert scores.gate_open.any() == (lambda_ == 0.0)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("options", [{}, {"pgd": "projected"}, {"direction": "fgm"}, {"uncertainty": "ucb"}], ids=str)
def test_a_dead_network_has_no_direction(options: dict[str, Any], path: int) -> None:
    one = case()
    first = {f"mlp.0.{side}": torch.zeros_like(one.params[f"mlp.0.{side}"]) for side in ("context", "item")}
    dead = one._replace(params=one.params | first | {"mlp.0.bias": -torch.ones(23)})
    scores = dead.check(Age(gate="none", rate=0.2, **options), path)
    assert np.array_equal(scores.score, scores.p_click)
    assert not scores.gradient_norm.any()


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("bias", [-200.0, -20.0, 12.0, 200.0])
@pytest.mark.parametrize("options", [{}, {"pgd": "projected"}, {"uncertainty": "ucb"}], ids=str)
def test_saturated_predictions(options: dict[str, Any], bias: float, path: int) -> None:
    one = case()
    saturated = one._replace(params=one.params | {"mlp.out.bias": torch.tensor(bias)})
    assert all(np.isfinite(column).all() for column in saturated.check(Age(gate="none", rate=0.1, **options), path))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("place", ["embedding.item_2", "mlp.1.bias"])
@pytest.mark.parametrize("options", [{}, {"uncertainty": "ucb", "pgd": "projected"}], ids=str)
def test_what_is_no_number_does_not_become_one(options: dict[str, Any], place: str, path: int) -> None:
    """Weights are finite when they are loaded; what is computed from those that exploded need not be."""
    one = case()
    exploded = one._replace(params=one.params | {place: torch.full_like(one.params[place], torch.nan)})
    scores = exploded.found(Age(gate="none", rate=0.1, **options), path)
    assert np.isnan(scores.p_click).all()
    assert np.isnan(scores.score).all()


def test_refuses_a_library_of_another_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable installation whose source moved on."""
    monkeypatch.setattr(kernel, "SOURCE", Path(shutil.copytree(kernel.SOURCE, tmp_path / "age")))
    monkeypatch.setattr(kernel, "LIBRARY", Path(shutil.copy(kernel.LIBRARY, tmp_path / "same.so")))
    assert kernel.library().age_best() == PATHS[-1]
    (tmp_path / "age" / "draws.h").write_text("/* changed */")
    monkeypatch.setattr(kernel, "LIBRARY", Path(shutil.copy(kernel.LIBRARY, tmp_path / "_age.so")))
    with pytest.raises(OSError, match="another source"):
        kernel.library()


def test_no_candidates() -> None:
    scores = case(0).found(Age())
    assert all(column.shape == (0,) for column in scores)


def test_threads_do_not_meet() -> None:
    ages = [Age(rate=0.1, **VARIANTS[variant]) for variant in ("literal_3", "ucb_candidate")]
    one = case(450)
    packed, masks = one.kernel(), [one.masks(age) for age in ages]

    def scores(number: int) -> Scores:
        age, mask = ages[number % 2], masks[number % 2]
        return packed.scores(method(asdict(age)), one.batch, mask, LAMBDA, one.impressions)

    alone = [scores(0), scores(1)]
    with ThreadPoolExecutor(4) as pool:
        for number, found in enumerate(pool.map(scores, range(60))):
            assert all(np.array_equal(*pair) for pair in zip(found, alone[number % 2], strict=True))


@pytest.mark.parametrize("bad", [-1, 102, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("side", ["context_index", "item_index"])
def test_refuses_an_index_without_a_row(side: str, bad: int) -> None:
    one = case()
    index = getattr(one.batch, side).copy()
    index[-1, -1] = bad
    with pytest.raises(IndexError, match=side.removesuffix("_index")):
        one._replace(batch=one.batch._replace(**{side: index})).found(Age())


def test_refuses_arrays_that_do_not_fit() -> None:
    one, age = case(), Age()
    packed, masks = one.kernel(), one.masks(age)
    few = one.batch._replace(item_weight=one.batch.item_weight[1:])
    for batch, mask, impressions in (
        (few, masks, one.impressions),
        (one.batch, masks[:, :, 1:], one.impressions),
        (one.batch, np.repeat(masks, 3, 1), one.impressions),
        (one.batch, masks, one.impressions[1:]),
    ):
        with pytest.raises(ValueError, match="shape"):
            packed.scores(method(asdict(age)), batch, mask, LAMBDA, impressions)


def test_refuses_what_it_has_no_room_for_and_paths_that_are_not_here() -> None:
    with pytest.raises(CheckpointError, match="9"):
        case(1, hidden=(4,) * 9).kernel()
    with pytest.raises(ValueError, match="path"):
        case().kernel(len(PATHS))
