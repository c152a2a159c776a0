"""A small world: traffic that can be learned from, and trainers for it."""

import json
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from torch.distributed import HashStore, ProcessGroupGloo

from models.export import export
from models.features import Encoder
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.registry import Strategy, beliefs, build
from models.spec import FeatureSpec
from service.events import Event, Served
from service.events import encode as encode_message
from service.streams import Entry, StreamNames, order
from service.training.join import Join
from service.training.joins import Joins
from service.training.ranks import Ranks
from service.training.sampling import Sampler
from service.training.trainer import Trainer

SPEC = """
[[fields]]
name = "segment"
side = "user"
kind = "categorical"
buckets = 8
width = 4

[[fields]]
name = "id"
side = "item"
kind = "categorical"
source = "id"
buckets = 64
width = 4

[[fields]]
name = "tags"
side = "item"
kind = "multi_hot"
buckets = 16
max_values = 3
width = 4
"""
NETWORK = NetworkConfig(hidden=(16, 16, 8), gate_hidden=8, initial_ctr=0.3)
STRATEGIES = {
    "greedy": {"method": "greedy"},
    "age_ts": {"method": "age", "uncertainty": "thompson", "budget": 0.05},
    "age_ucb": {"method": "age", "uncertainty": "ucb", "draws": 3, "lambda": 7.0},
}
WINDOW_MS = 1_000
BATCH_SIZE = 32


class Logged(NamedTuple):
    """What goes into a stream, when, and as what."""

    time_ms: int
    kind: str  # "served" or "feedback"
    request_id: str
    payload: bytes


class World:
    """Everything that the tests of this folder share."""

    spec_toml = SPEC
    spec = FeatureSpec.from_toml(SPEC)
    strategies = STRATEGIES
    network = NETWORK
    window_ms = WINDOW_MS
    batch_size = BATCH_SIZE
    learning_rate = 0.01
    seed = 7

    @staticmethod
    def trainer(**changes: Any) -> Trainer:
        given: dict[str, Any] = {"strategies": STRATEGIES, "network": NETWORK, "max_pending": 100_000, **changes}
        strategies = {name: build(name, options) for name, options in given["strategies"].items()}
        learner = Learner(
            ClickNetwork(World.spec, given["network"]),
            learning_rate=World.learning_rate,
            seed=World.seed,
            optimizer=given.get("optimizer", "adam"),
            beliefs=beliefs(strategies.values()),
            negative_rate=given.get("negative_rate", 1.0),
            peers=given["ranks"].peers if "ranks" in given else None,
            parts=given.get("parts"),
        )
        return Trainer(
            learner=learner,
            joins=Joins(lambda: Join(window_ms=WINDOW_MS, mode="served", max_pending=given["max_pending"])),
            lane=given.get("lane", "default"),
            strategies=strategies,
            batch_size=BATCH_SIZE,
            mature_impressions=10,
            ranks=given.get("ranks"),
            sampler=Sampler(rate=given.get("negative_rate", 1.0), seed=World.seed),
        )

    @staticmethod
    @cache
    def _graph(method: str, options: str) -> bytes:
        return export(ClickNetwork(World.spec, NETWORK), build("any", {"method": method, **json.loads(options)}))

    @staticmethod
    def graph(strategy: Strategy) -> bytes:
        """Its ranking graph, exported once for all tests."""
        return World._graph(strategy.method, json.dumps(strategy.options))

    @staticmethod
    def served(request_id: str, items: Sequence[str] = ("a", "b"), segment: int = 0, **changes: Any) -> Served:
        tags = [{"tags": [one, len(one)]} for one in items]
        batch = Encoder(World.spec).batch(items, tags, user={"segment": segment})
        content: dict[str, Any] = {
            "request_id": request_id,
            "time_ms": 1_000,
            "lane": "default",
            "strategy": "greedy",
            "version": 0,
            "lambda_": 10.0,
            "seed": 1,
            "spec_hash": World.spec.hash,
            "bucket": None,
            "context_index": batch.context_index.tobytes(),
            "context_weight": batch.context_weight.tobytes(),
            "item_ids": list(items),
            "item_index": batch.item_index.tobytes(),
            "item_weight": batch.item_weight.tobytes(),
            "p_click": [0.25] * len(items),
            "score": [0.5] * len(items),
            "explored": [False] * len(items),
            "impressions": [0] * len(items),
            "propensity": None,
        }
        return Served(**{**content, **changes})

    @staticmethod
    def traffic(requests: int, seed: int = 0, start_ms: int = 10_000) -> list[Logged]:
        """Requests every 10 ms whose clicks can be predicted, with duplicates, disorder, late and lost feedback."""
        generator = np.random.default_rng(seed)
        logged = []
        for number in range(requests):
            time_ms, request_id = start_ms + 10 * number, f"r{seed}-{number}"
            segment = int(generator.integers(8))
            items = [f"item{one}" for one in generator.choice(20, size=3, replace=False)]
            served = World.served(
                request_id,
                items,
                segment,
                time_ms=time_ms,
                strategy=["greedy", "age_ts"][number % 2],
                explored=(generator.random(3) < 0.2).tolist(),
                lambda_=float(generator.uniform(5.0, 20.0)),
                impressions=generator.integers(20, size=3).tolist(),
                lane="another" if generator.random() < 0.05 else "default",
            )
            record = Logged(time_ms, "served", request_id, encode_message(served))
            logged += [record] * (2 if generator.random() < 0.05 else 1)
            for item in items:
                if generator.random() < (0.6 if item[-1] in "13579" else 0.05):
                    event = Event(id=f"{request_id}-{item}", type="click", request_id=request_id, item_id=item)
                    delay_ms = int(generator.integers(-200, 1_300))  # some come before, some after the window
                    click = Logged(max(time_ms + delay_ms, 1), "feedback", request_id, encode_message(event))
                    logged += [click] * (2 if generator.random() < 0.1 else 1)
            if generator.random() < 0.03:
                event = Event(id=f"lost-{number}", type="click", request_id=f"lost-{number}", item_id="x")
                logged.append(Logged(time_ms, "feedback", f"lost-{number}", encode_message(event)))
            if generator.random() < 0.03:
                logged.append(Logged(time_ms, "feedback", request_id, b"\x01garbage"))
        return sorted(logged, key=lambda one: one.time_ms)

    @staticmethod
    def batch(logged: Sequence[Logged], names: StreamNames) -> list[tuple[str, bytes, str | None]]:
        """What `append_batch` takes, with positions that ascend in (ms, seq, stream)."""
        streams = {"served": names.served, "feedback": names.feedback}
        return [
            (streams[one.kind](one.request_id), one.payload, f"{one.time_ms}-{number}")
            for number, one in enumerate(logged, 1)
        ]

    @staticmethod
    def entries(logged: Sequence[Logged], names: StreamNames) -> list[Entry]:
        """The same as the reader would give it."""
        entries = [Entry(stream, position or "", payload) for stream, payload, position in World.batch(logged, names)]
        return sorted(entries, key=lambda one: (order(one.position), one.stream))

    @staticmethod
    def entry(message: Served | Event | bytes, time_ms: int, kind: str = "") -> Entry:
        payload = message if isinstance(message, bytes) else encode_message(message)
        stream = kind or ("served" if isinstance(message, Served) else "feedback")
        return Entry(f"test:{{0}}:{stream}", f"{time_ms}-0", payload)


@pytest.fixture(scope="session")
def world() -> type[World]:
    return World


@pytest.fixture(scope="session")
def together() -> Callable[[int, Callable[[Ranks], Any]], list[Any]]:
    """What so many ranks return, which talk over gloo, each in a thread of its own."""

    def run(size: int, work: Callable[[Ranks], Any]) -> list[Any]:
        store = HashStore()
        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(lambda rank: work(Ranks(ProcessGroupGloo(store, rank, size))), range(size)))

    return run


@pytest.fixture(scope="session")
def bits() -> Callable[[dict[str, np.ndarray]], dict[str, tuple[str, tuple[int, ...], bytes]]]:
    """Arrays as something that is equal only where every bit is."""

    def of(arrays: dict[str, np.ndarray]) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
        return {name: (str(one.dtype), one.shape, one.tobytes()) for name, one in arrays.items()}

    return of


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / "features.toml"
    path.write_text(SPEC)
    return path


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], object], str], None]:
    """Polls with a deadline."""

    def wait(true: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + 120.0
        while not true():
            assert time.monotonic() < deadline, f"in vain: {what}"
            time.sleep(0.02)

    return wait
