"""Networks as if they had learned, and requests for them."""

from collections.abc import Callable
from dataclasses import asdict
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from models.exploration.age import Age
from models.networks.click import ClickNetwork, NetworkConfig, tensors
from models.noise import draw
from models.spec import FeatureSpec
from models.types import Array, Batch, Inputs, Scores
from service.scoring.engines.kernel import Kernel
from service.scoring.engines.native import method

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
def make_case(count: int = 75, spec: str = "mixed", hidden: tuple[int, ...] = (23, 14, 9)) -> Case:
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


@pytest.fixture(scope="session")
def case() -> Callable[..., Case]:
    return make_case
