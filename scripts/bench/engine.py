"""agerank bench engine: what exploration costs in the engine, against greedy, the plain network and the naive way."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor

from models.features import item_hashes
from models.noise import draw, seed_of
from models.types import Array, Batch, Noise
from scripts.bench.measure import Tell, interleave, ratio
from scripts.bench.naive import NaiveNetwork, age, full_masks, plain_graph
from scripts.bench.plain import PlainNetwork
from scripts.bench.processes import pin
from scripts.bench.report import (
    ENGINE,
    AsJson,
    Candidates,
    Column,
    Core,
    EngineKind,
    Row,
    Runs,
    failing,
    progress,
    show,
    whole_numbers,
)
from scripts.bench.work import LANE, STRATEGIES, Catalogue, Model, publishing, rows
from service.checkpoints import LocalStore
from service.scoring.engines import Kind
from service.scoring.loading import load
from service.scoring.ranking import Loaded

EXPLORING = [name for name in STRATEGIES if name != "greedy"]
NAIVE = "naive "
REQUESTS = 8  # that are taken by turns
#: A candidate that stands on the threshold itself has its gate opened or shut by the last bit.
FIRM = 1e-6

COLUMNS = (
    Column("candidates", "candidates", "d"),
    Column("method", "method"),
    Column("ms", "ms", ".3f"),
    Column("over_greedy", "over greedy", ".2f"),
    Column("over_plain", "over plain", ".2f"),
    Column("faster_than_naive", "faster than naive", ".1f"),
    Column("error", "error", ".0e"),
)


def engine(
    candidates: Candidates = "100,450,1000",
    runs: Runs = 5,
    seconds: Annotated[float, typer.Option(min=0.0, help="Of one method in one run.")] = 0.3,
    core: Core = None,
    engine: EngineKind = ENGINE,
    as_json: AsJson = False,
) -> None:
    """Measure every method in our engine, on one thread, without HTTP and without encoding.

    **plain** is the network alone in bare onnxruntime with its weights in the graph: what a team that does not explore
    serves. **greedy**, **age_ts** (Thompson, one mask over all hidden units) and **age_ucb** (20 masks of the last
    layer) run in our engine, as `agerank serve` runs them; T = 3, and the gate is open for about half of the
    candidates. **naive** is AGE in torch as the paper is read: autograd for every gradient, a full pass for every mask,
    all candidates.

    **ms** is the median of the runs' medians for one request, **over greedy** and **over plain** its ratios to these
    in the same run, **faster than naive** the naive way's time over ours. **error** is the largest difference of any
    score from the naive way in float64.

    For quiet figures name a core that nothing else uses: `agerank bench engine --core 1`, or `taskset -c 1`.
    """
    pin(core)
    with failing(), progress(as_json=as_json, versions=("numpy", "onnxruntime", "torch")) as tell:
        found = run(candidates=whole_numbers(candidates), runs=runs, seconds=seconds, engine=engine, tell=tell)
    show(
        found, COLUMNS, title=f"One request in the {engine} engine, one thread, median of {runs} runs", as_json=as_json
    )


def run(*, candidates: Sequence[int], runs: int, seconds: float, engine: Kind, tell: Tell) -> list[Row]:
    """A row for each number of candidates and method; docs/benchmarks.md explains the keys."""
    torch.set_num_threads(1)
    tell("making the network")
    model = Model()
    with tempfile.TemporaryDirectory(prefix="agerank-bench-") as name, publishing(Path(name), model) as versions:
        version = versions.publish().version
        store = LocalStore(Path(name))
        loaded = load(store, version, kind=engine, threads=1, lane=LANE, strategies=STRATEGIES, max_items=1)
    ways, exact = _ways(loaded, model), _Exact(model)
    found: list[Row] = []
    for count in candidates:
        requests = [_prepare(loaded, number, count) for number in range(REQUESTS)]
        turns = {method: _by_turns(way, requests) for method, way in ways.items()}
        tell(f"{count} candidates")
        taken = interleave(turns, runs=runs, seconds=seconds, tell=tell)
        errors = {method: max(exact.error(method, way, one) for one in requests) for method, way in ways.items()}
        found += [_row(count, method, taken, errors[method]) for method in ways]
    return found


class Request(NamedTuple):
    """Encoded, with its noise drawn."""

    batch: Batch
    noise: dict[str, Noise]  # by strategy
    impressions: Array  # (B,) int64


Way = Callable[[Request], Array]  # -> (B,) scores


def _prepare(loaded: Loaded, number: int, count: int) -> Request:
    request = Catalogue().request(number, count)
    item_hash = item_hashes([one["id"] for one in request["candidates"]])
    seed = np.array([seed_of(request["request_id"])], dtype=np.uint64)
    noise = {
        name: draw(one.noise, request_seed=seed, version=loaded.manifest.version, item_hash=item_hash)
        for name, one in loaded.manifest.strategies.items()
    }
    return Request(rows(request), noise, loaded.impressions(item_hash))


def _ways(loaded: Loaded, model: Model) -> dict[str, Way]:
    """Method -> what to call."""
    network = NaiveNetwork(model.params)
    plain = PlainNetwork(plain_graph(network))
    ways: dict[str, Way] = {"plain": lambda one: plain(one.batch.context_index, one.batch.item_index)}
    ways |= {name: partial(_ours, loaded, name) for name in STRATEGIES}
    return ways | {f"{NAIVE}{name}": partial(_naive, network, name) for name in EXPLORING}


def _ours(loaded: Loaded, strategy: str, request: Request) -> Array:
    lambda_ = loaded.manifest.strategies[strategy].lambda_
    return loaded.engine.scores(strategy, request.batch, request.noise[strategy], lambda_, request.impressions).score


def _naive(network: NaiveNetwork, strategy: str, request: Request) -> Array:
    masks = torch.from_numpy(request.noise[strategy]["masks"]).to(network.out.weight.dtype)
    lambda_: float = STRATEGIES[strategy]["lambda"]
    scores: Array = age(network, *_indices(request), full_masks(masks, network), lambda_).numpy()
    return scores


def _indices(request: Request) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(request.batch.context_index), torch.from_numpy(request.batch.item_index)


class _Exact:
    """The naive way in float64."""

    def __init__(self, model: Model) -> None:
        self._network = NaiveNetwork({name: value.double() for name, value in model.params.items()})

    def error(self, method: str, way: Way, request: Request) -> float:
        """The largest difference of any score."""
        h = self._network.embed(*_indices(request))
        p, threshold = self._network.click(h), self._network.threshold(h)
        strategy = method.removeprefix(NAIVE)
        scores = _naive(self._network, strategy, request) if strategy in EXPLORING else p.numpy()
        firm = ((p - threshold).abs() > FIRM).numpy()
        return float(np.abs(way(request) - scores)[firm].max())


def _by_turns(way: Way, requests: Sequence[Request]) -> Callable[[], object]:
    turns = cycle(requests)
    return lambda: way(next(turns))


def _row(count: int, method: str, taken: Mapping[str, Array], error: float) -> Row:
    naive = taken.get(f"{NAIVE}{method}")
    return {
        "candidates": count,
        "method": method,
        "ms": float(np.median(taken[method])) * 1e3,
        "over_greedy": ratio(taken[method], taken["greedy"]),
        "over_plain": ratio(taken[method], taken["plain"]),
        "faster_than_naive": None if naive is None else ratio(naive, taken[method]),
        "error": error,
    }
