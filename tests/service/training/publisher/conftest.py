"""Trainers that publish deltas."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service import checkpoints, deltas
from service.checkpoints import LocalStore, Manifest
from service.streams import START, Entry, StreamNames, order
from service.telemetry import TrainerMetrics
from service.training.guard import UNGUARDED, Guard
from service.training.outcome import Progress, Refusal
from service.training.publisher import Publisher
from service.training.trainer import Trainer

NAMES = StreamNames("test", partitions=2)
FIRST, PART = 240, 60  # entries before the first version, so many that a window closes, and between two


class Strict(Guard):
    """Refuses what it is told to."""

    def __init__(self) -> None:
        super().__init__(UNGUARDED)
        self.refuses = False

    def judge(self) -> Refusal | None:
        return Refusal("pcoc", "too high") if self.refuses else None


class Run:
    """A trainer from its start to its death."""

    def __init__(self, world: Any, root: Path, *, full_every: int = 3, optimizer: str = "sparse_adam") -> None:
        self.trainer: Trainer = world.trainer(optimizer=optimizer)
        self.store, self.guard = LocalStore(root), Strict()
        self.refused = TrainerMetrics(CollectorRegistry()).refused
        self.publisher = Publisher(
            self.store,
            self.trainer,
            spec=world.spec_toml,
            graphs={name: world.graph(strategy) for name, strategy in self.trainer.strategies.items()},
            keep=9,
            guard=self.guard,
            refused=self.refused,
            full_every=full_every,
        )
        self.first = self.publisher.start(now_ms=1)

    def publish(self, part: Sequence[Entry], **options: bool) -> Manifest | None:
        progress = Progress()
        progress.add(self.trainer.feed(part))
        self.published = self.publisher.publish(progress, now_ms=2, **options)
        self.completed = self.publisher.complete()
        return self.published.manifest

    def read(self, entries: Sequence[Entry]) -> int:
        """How many of them it has been fed."""
        return sum(order(one.position) <= order(self.trainer.positions.get(one.stream, START)) for one in entries)

    def follow(self, parts: Sequence[Sequence[Entry]]) -> list[Manifest | None]:
        """Publishes after each."""
        return [self.publish(one) for one in parts]

    @property
    def current(self) -> int | None:
        return checkpoints.current(self.store)


@pytest.fixture(scope="session")
def parts(world) -> list[list[Entry]]:
    """Of a log: a step or more in each."""
    entries = world.entries(world.traffic(300), NAMES)
    return [entries[:FIRST], *(entries[start : start + PART] for start in range(FIRST, len(entries), PART))]


def content_of(store: LocalStore, version: int | None) -> dict[str, np.ndarray]:
    """The weights of a version as a scorer makes them."""
    assert version is not None
    bottom, *links = checkpoints.chain(store, checkpoints.load_manifest(store, version))
    weights = checkpoints.load_weights(store, bottom)
    for one in links:
        weights = deltas.apply(weights, checkpoints.load_delta(store, one))
    return weights


@pytest.fixture(scope="session")
def content() -> Callable[..., dict[str, np.ndarray]]:
    return content_of


@pytest.fixture
def start(world) -> Callable[..., Run]:
    return partial(Run, world)
