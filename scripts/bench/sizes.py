"""What full versions and deltas of a large model cost: bytes, time to write and to load. For `agerank bench freshness`.

The trainer is fed a log, publishes, and the scorer's own loading takes what was published, all in this process.
"""

import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np
import torch
from prometheus_client import CollectorRegistry

from models.export import export
from models.features import Encoder, item_hashes
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.registry import build
from models.spec import FeatureSpec
from scripts.bench.measure import Tell
from scripts.bench.records import record
from scripts.bench.report import Row
from scripts.bench.work import LANE, SPEC, STRATEGIES, VALUES
from service.checkpoints import ITEM_HASH, ITEM_IMPRESSIONS, LocalStore, Manifest, load_delta
from service.deltas import ROWS
from service.events import Event, Served, encode
from service.scoring.engines import Kind
from service.scoring.loading import load
from service.scoring.ranking import Loaded
from service.streams import Entry
from service.telemetry import TrainerMetrics
from service.training.drafts import draft
from service.training.guard import UNGUARDED, Guard
from service.training.join import Join
from service.training.joins import Joins
from service.training.outcome import Progress
from service.training.publisher import Publisher
from service.training.trainer import Trainer

TOUCHED = 0.005  # of the rows of every table, from one version to the next
OPTIMIZER = "sparse_adam"
_ID = '[[fields]]\nname = "id"\nside = "item"\nkind = "categorical"\nsource = "id"\nbuckets = {}\nwidth = 8\n'
_SHOWN, _WINDOW_MS, _BATCH = 20, 1_000, 250
_FIELDS = [(field.side, field.name) for field in FeatureSpec.from_toml(SPEC).fields]


class _Cost(NamedTuple):
    kind: str
    bytes: int
    touched: float  # share of the rows
    publish_s: float
    load_s: float


def run(*, items: int, runs: int, engine: Kind, tell: Tell) -> list[Row]:
    """A row for full versions and one for deltas; docs/benchmarks.md explains the keys."""
    torch.set_num_threads(1)
    tell(f"a model of {items:,} items")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agerank-bench-")))
        store = LocalStore(folder)
        stack.enter_context(store.lock())
        costs = list(_costs(store, items, runs, engine, tell))
    by_kind = {kind: [one for one in costs if one.kind == kind] for kind in ("full", "delta")}
    size = {kind: median(one.bytes for one in found) for kind, found in by_kind.items()}
    return [
        {
            "case": f"{items:,} items",
            "versions": kind,
            "number": len(found),
            "touched": median(one.touched for one in found),
            "kilobytes": size[kind] / 1e3,
            "of_full": size[kind] / size["full"],
            "publish_ms": 1e3 * median(one.publish_s for one in found),
            "load_ms": 1e3 * median(one.load_s for one in found),
        }
        for kind, found in by_kind.items()
    ]


def _costs(store: LocalStore, items: int, runs: int, engine: Kind, tell: Tell) -> Iterator[_Cost]:
    spec = SPEC + _ID.format(items)
    trainer = _trainer(spec, items)
    log = _log(FeatureSpec.from_toml(spec), items)
    publisher = Publisher(
        store,
        trainer,
        spec=spec,
        graphs={name: export(trainer.learner.network, one) for name, one in trainer.strategies.items()},
        keep=2,
        guard=Guard(UNGUARDED),
        refused=TrainerMetrics(CollectorRegistry()).refused,
        full_every=2 * runs + 1,
    )
    publisher.start(now_ms=0)
    loaded = _load(store, 0, engine, None)
    rows = sum(table.rows for side in (loaded.encoder.spec.context, loaded.encoder.spec.item) for table in side.tables)
    for number in range(2 * runs):
        tell(f"version {number + 1} of {2 * runs}")
        trainer.feed(next(log))
        started = time.perf_counter()
        manifest = publisher.publish(Progress(), now_ms=0, whole=number % 2 == 1).manifest
        published = time.perf_counter()
        assert manifest is not None, "nothing is refused, and nobody has learned more"
        touched = _touched(store, manifest) / rows if manifest.base else 1.0
        begun = time.perf_counter()
        loaded = _load(store, manifest.version, engine, loaded)
        yield _Cost(manifest.kind, manifest.bytes, touched, published - started, time.perf_counter() - begun)


def _touched(store: LocalStore, manifest: Manifest) -> int:
    return sum(len(rows) for name, rows in load_delta(store, manifest).items() if name.startswith(ROWS))


def _load(store: LocalStore, version: int, engine: Kind, previous: Loaded | None) -> Loaded:
    given: dict[str, Any] = {"lane": LANE, "strategies": STRATEGIES, "max_items": 1}
    return load(store, version, kind=engine, threads=1, previous=previous, **given)


def _trainer(spec: str, items: int) -> Trainer:
    """One that has seen every item once."""
    network = ClickNetwork(FeatureSpec.from_toml(spec), NetworkConfig())
    trainer = Trainer(
        learner=Learner(network, learning_rate=1e-3, seed=0, optimizer=OPTIMIZER),
        joins=Joins(lambda: Join(window_ms=_WINDOW_MS, mode="served", max_pending=items)),
        lane=LANE,
        strategies={name: build(name, options) for name, options in STRATEGIES.items()},
        batch_size=min(_BATCH, round(items * TOUCHED)),
        mature_impressions=3_000,
    )
    shown = np.unique(item_hashes([f"item-{number}" for number in range(items)]))
    seen = {ITEM_HASH: shown, ITEM_IMPRESSIONS: np.ones(len(shown), dtype=np.int64)}
    trainer.restore(draft(trainer, Progress(), spec=spec, now_ms=0), {**trainer.weights(), **seen}, trainer.state())
    return trainer


def _log(spec: FeatureSpec, items: int) -> Iterator[list[Entry]]:
    """What is learned from between two versions: of every table, TOUCHED of the rows."""
    generator, encoder = np.random.default_rng(0), Encoder(spec)
    stream, time_ms = "bench:{0}:", 1_700_000_000_000
    values = round(VALUES * TOUCHED)
    while True:
        chosen = generator.choice(items, size=round(items * TOUCHED), replace=False)
        first = int(generator.integers(VALUES))
        entries = []
        for number, places in enumerate(np.array_split(chosen, max(1, len(chosen) // _SHOWN))):
            features = [_features("item", first + (number * _SHOWN + row) % values) for row in range(len(places))]
            served = _served(encoder, time_ms, number, places.tolist(), features, first + number % values)
            entries.append(Entry(f"{stream}served", f"{time_ms}-{number + 1}", encode(served)))
        time_ms += 2 * _WINDOW_MS
        end = encode(Event(id=f"end-{time_ms}", type="impression", request_id="end", item_id="end"))
        yield [*entries, Entry(f"{stream}feedback", f"{time_ms}-0", end)]


def _features(side: str, value: int) -> dict[str, str]:
    return {name: f"{side}-{value}" for one, name in _FIELDS if one == side}


def _served(
    encoder: Encoder, time_ms: int, number: int, places: list[int], features: list[dict[str, str]], value: int
) -> Served:
    ids = [f"item-{place}" for place in places]
    user, context = _features("user", value), _features("context", value)
    batch = encoder.batch(ids, features, user_id="user", user=user, context=context)
    told = {"request_id": f"r{time_ms}-{number}", "time_ms": time_ms, "version": 0, "spec_hash": encoder.spec.hash}
    return record(batch, ids, [0.05] * len(ids), **told)
