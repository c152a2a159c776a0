"""What all benchmarks measure on: one network, its versions on disk, and requests, all from a seed.

The items of a catalogue have fixed features, so a request that names its candidates by id alone ranks the very same
rows as one that brings their features along.
"""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prometheus_client import CollectorRegistry

from models.export import export
from models.features import Encoder
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig, Params
from models.registry import Strategy, build
from models.spec import FeatureSpec
from models.types import Array, Batch
from scripts.bench.naive import NaiveNetwork
from service.checkpoints import LocalStore, Manifest, Store
from service.telemetry import TrainerMetrics
from service.training.guard import UNGUARDED, Guard
from service.training.join import Join
from service.training.joins import Joins
from service.training.outcome import Progress
from service.training.publisher import Publisher
from service.training.trainer import Trainer

SPEC = (resources.files("scripts") / "specs" / "benchmark.toml").read_text(encoding="utf-8")
#: The same fields with few values: for networks that are written and loaded in no time.
SMALL = SPEC.replace("buckets = 10000", "buckets = 50").replace("width = 8", "width = 2")
LANE = "default"
CANDIDATES = (100, 450, 1_000)
#: lambda is given, so that a published version explores as strongly as the one before it.
STRATEGIES: dict[str, dict[str, Any]] = {
    "greedy": {"method": "greedy"},
    "age_ts": {"method": "age", "uncertainty": "thompson", "lambda": 10.0},
    "age_ucb": {"method": "age", "uncertainty": "ucb", "draws": 20, "dropout": "last_layer", "lambda": 10.0},
}
VALUES = 10_000  # of one field
_NAMES = {
    side: [field.name for field in FeatureSpec.from_toml(SPEC).fields if field.side == side]
    for side in ("user", "context", "item")
}
#: Times the spread of a fresh network's items and outputs, which says nearly the same of all of them. Not the users':
#: the gate is to be open for half of the candidates of every request.
_VARIETY = 10.0


class Catalogue:
    """Items whose features are known, and requests for some of them.

    Values are skewed, as those of real catalogues are: a tenth of them makes up half of what is asked for.

    Args:
        items: how many there are.
        seed: of everything.
    """

    def __init__(self, items: int = 10_000, seed: int = 0) -> None:
        self.items, self._seed = items, seed
        generator = np.random.default_rng([seed, 0])
        self._values = _skewed(generator, (items, len(_NAMES["item"])))

    def item(self, place: int) -> dict[str, Any]:
        """One item as a candidate, and as the item store takes it."""
        return {"id": f"item-{place}", "features": _features("item", self._values[place])}

    def request(self, number: int, candidates: int, *, ids_only: bool = False, **more: object) -> dict[str, Any]:
        """A request for distinct items. Equal numbers ask for the same items and users; `more` goes in as it is."""
        generator = np.random.default_rng([self._seed, 1, number])
        places = generator.choice(self.items, size=candidates, replace=False)
        user = _features("user", _skewed(generator, (len(_NAMES["user"]),)))
        context = _features("context", _skewed(generator, (len(_NAMES["context"]),)))
        items = [{"id": f"item-{place}"} if ids_only else self.item(place) for place in places.tolist()]
        return {
            "request_id": f"request-{number}",
            "user": {"id": f"user-{number}", "features": user},
            "context": {"features": context},
            "candidates": items,
            **more,
        }

    def body(self, number: int, candidates: int, **options: Any) -> bytes:
        """The same as JSON without blanks."""
        return json.dumps(self.request(number, candidates, **options), separators=(",", ":")).encode()


def rows(request: Mapping[str, Any], spec: str = SPEC) -> Batch:
    """A request, encoded."""
    candidates = request["candidates"]
    return Encoder(FeatureSpec.from_toml(spec)).batch(
        [one["id"] for one in candidates],
        [one["features"] for one in candidates],
        user_id=request["user"]["id"],
        user=request["user"]["features"],
        context=request["context"]["features"],
    )


class Model:
    """The network, with parameters that vary as learned ones do and a gate open for half of the candidates.

    Args:
        spec: with the fields of SPEC.
    """

    def __init__(self, seed: int = 0, *, spec: str = SPEC, config: NetworkConfig | None = None) -> None:
        self.spec = spec
        self.network = ClickNetwork(FeatureSpec.from_toml(spec), config or NetworkConfig())
        self.learner = Learner(self.network, learning_rate=1e-3, seed=seed)
        with torch.no_grad():
            for name, value in self.params.items():
                if name.startswith("embedding.item_") or name in ("mlp.out.weight", "gate.out.weight"):
                    value *= _VARIETY
            self._open_half()

    @property
    def params(self) -> Params:
        return self.learner.params

    def _open_half(self) -> None:
        """Shifts the bias of the gate's output so that it is open for half of the candidates of many requests."""
        catalogue, naive, above = Catalogue(), NaiveNetwork(self.params), []
        for number in range(8):
            batch = rows(catalogue.request(number, 500), self.spec)
            h = naive.embed(torch.from_numpy(batch.context_index), torch.from_numpy(batch.item_index))
            above.append(torch.logit(naive.click(h)) - torch.logit(naive.threshold(h)))
        self.params["gate.out.bias"] += torch.cat(above).median()

    @cached_property
    def strategies(self) -> dict[str, Strategy]:
        return {name: build(name, options) for name, options in STRATEGIES.items()}

    @cached_property
    def graphs(self) -> dict[str, bytes]:
        """Strategy -> ONNX."""
        return {name: export(self.network, one) for name, one in self.strategies.items()}


class Versions:
    """A lane's folder, written by the trainer's own publisher. Made by `publishing`."""

    def __init__(self, store: Store, model: Model, keep: int) -> None:
        self._model = model
        trainer = Trainer(
            learner=model.learner,
            joins=Joins(lambda: Join(window_ms=600_000, mode="served", max_pending=1)),
            lane=LANE,
            strategies=model.strategies,
            batch_size=256,
            mature_impressions=3_000,
        )
        refused = TrainerMetrics(CollectorRegistry()).refused
        self._publisher = Publisher(
            store, trainer, spec=model.spec, graphs=model.graphs, keep=keep, guard=Guard(UNGUARDED), refused=refused
        )

    def publish(self) -> Manifest:
        """The model as it is, as the version of its step."""
        manifest = self._publisher.publish(Progress(), now_ms=time.time_ns() // 1_000_000).manifest
        assert manifest is not None, "nothing refuses these versions: no guard, no pin, and each is ahead of the last"
        return manifest

    def publish_next(self, generator: np.random.Generator) -> Manifest:
        """A version one step on, whose scores differ from those before."""
        learner = self._model.learner
        learner.step += 1
        with torch.no_grad():
            weight = learner.params["mlp.out.weight"]
            weight *= torch.from_numpy(1.0 + 0.1 * generator.standard_normal(weight.shape).astype(np.float32))
        return self.publish()


@contextmanager
def publishing(root: Path, model: Model, *, keep: int = 5) -> Iterator[Versions]:
    """Versions below `root`, with the right to write them. Raises CheckpointError: locked."""
    store = LocalStore(root)
    with store.lock():
        yield Versions(store, model, keep)


def _features(side: str, values: Array) -> dict[str, str]:
    return {name: f"{side}-{value}" for name, value in zip(_NAMES[side], values.tolist(), strict=True)}


def _skewed(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return (VALUES * generator.random(shape) ** 3).astype(np.int64)
