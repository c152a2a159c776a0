"""A worker on a real server."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry

from service.checkpoints import LocalStore
from service.streams import StreamNames, entries_of
from service.telemetry import TrainerMetrics
from service.training.guard import UNGUARDED, Bounds, Guard
from service.training.outcome import Outcome, Progress
from service.training.publisher import Publisher
from service.training.worker import Worker

PATIENCE_S = 20.0


class Running:
    """A worker with everything that it needs, and what can be seen of it."""

    def __init__(
        self,
        world,
        root: Path,
        client: redis.Redis,
        names: StreamNames,
        interval_s=1e9,
        bounds: Bounds = UNGUARDED,
        full_every: int = 1,
    ) -> None:
        self.set_back_s = 0.0  # the clock
        self.root, self.client, self.names = root, client, names
        self.trainer, self.stop = (
            world.trainer(optimizer="sparse_adam" if full_every > 1 else "adam"),
            threading.Event(),
        )
        self.metrics = TrainerMetrics(CollectorRegistry())
        self.outcomes: list[Outcome] = []
        graphs = {name: world.graph(strategy) for name, strategy in self.trainer.strategies.items()}
        given = {"spec": world.spec_toml, "graphs": graphs, "guard": Guard(bounds), "refused": self.metrics.refused}
        publisher = Publisher(LocalStore(root), self.trainer, keep=3, full_every=full_every, **given)
        self.worker = Worker(
            trainer=self.trainer,
            publisher=publisher,
            client=client,
            names=names,
            window_ms=world.window_ms,
            maxlen=1_000,
            publish_interval_s=interval_s,
            metrics=self.metrics,
            stop=self.stop,
            clock=lambda: time.time() - self.set_back_s,
            observe=self.outcomes.append,
        )

    @contextmanager
    def in_thread(self) -> Iterator[None]:
        thread = threading.Thread(target=self.worker.run)
        thread.start()
        try:
            yield
        finally:
            self.stop.set()
            thread.join(PATIENCE_S)
            assert not thread.is_alive()

    def burst(self) -> Progress:
        return self.worker.run(burst=True)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def payloads(self, stream: str) -> list[bytes]:
        return [entry.payload for entry in entries_of(self.client.xread({stream: "0"})).get(stream, [])]


@pytest.fixture
def start(world) -> Callable[..., Running]:
    return partial(Running, world)


@pytest.fixture
def running(start: Callable[..., Running], tmp_path: Path, client: redis.Redis, names: StreamNames) -> Running:
    return start(tmp_path, client, names)
