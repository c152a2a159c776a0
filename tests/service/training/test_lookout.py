"""The trainer notices what the log has lost and learns on: nothing twice, and nothing new is left out."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from prometheus_client import CollectorRegistry

from service.appends import append_batch
from service.connections import connect
from service.streams import LogReader, StreamNames
from service.telemetry import TrainerMetrics
from service.training.lookout import CHECK_S, Lookout
from service.valkey import EmbeddedServer


class Learning:
    """A trainer that reads, learns, and looks; without publishing."""

    def __init__(self, world, client: redis.Redis, names: StreamNames) -> None:
        self.client, self.trainer, self.now_s = client, world.trainer(), 1.0
        self.metrics = TrainerMetrics(CollectorRegistry())
        self.join: Counter[str] = Counter()
        self._reader = LogReader(client, names)
        self._lookout = Lookout(
            client, names.inputs, window_ms=world.window_ms, metrics=self.metrics, clock=lambda: self.now_s
        )

    def read_all(self) -> None:
        positions, entries = None, []
        while entries or positions != self.trainer.positions:
            positions = dict(self.trainer.positions)
            entries = self._reader.read(positions, block_ms=0)
            self.join += self.trainer.feed(entries).join
            self.trainer.positions |= self._lookout.look(positions, entries)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)

    def lost(self, stream: str, reason: str) -> float | None:
        return self.sample("agerank_stream_lost_total", stream=stream, reason=reason)


@pytest.fixture
def learning(world, client: redis.Redis, names: StreamNames) -> Learning:
    return Learning(world, client, names)


def test_after_a_lagging_replica_took_over_nothing_is_learned_twice_and_all_that_is_new(
    world, learning: Learning, names: StreamNames, bits
) -> None:
    """Callers send again what they fear to be lost: part of it stands in the older copy, part was learned before."""
    batch = world.batch(world.traffic(400), names)
    third = len(batch) // 3
    append_batch(learning.client, batch[:third])
    older = {stream: learning.client.dump(stream) for stream in names.inputs}
    append_batch(learning.client, batch[third : 2 * third])
    learning.read_all()
    for stream, copy in older.items():
        learning.client.restore(stream, 0, copy, replace=True)
    learning.read_all()
    assert [learning.lost(stream, "restored") for stream in names.inputs] == [1.0] * 4
    append_batch(learning.client, batch[third:])
    learning.read_all()
    assert [learning.lost(stream, "restored") for stream in names.inputs] == [1.0] * 4

    undisturbed = world.trainer()
    outcome = undisturbed.feed(world.entries(world.traffic(400), names))
    assert bits(learning.trainer.weights()) == bits(undisturbed.weights())
    assert learning.join["matched"] == outcome.join["matched"]
    assert learning.join["duplicate"] > outcome.join["duplicate"]


def test_a_server_that_lost_everything_is_learned_from_anew(world, learning: Learning, names: StreamNames) -> None:
    batch = world.batch(world.traffic(100), names)
    append_batch(learning.client, batch)
    learning.read_all()
    for stream in names.inputs:
        learning.client.delete(stream)
    learning.read_all()
    assert [learning.lost(stream, "emptied") for stream in names.inputs] == [1.0] * 4
    append_batch(learning.client, world.batch(world.traffic(100, seed=1), names))  # at the times of the first
    learning.read_all()
    assert learning.trainer.positions == {
        stream: learning.client.xinfo_stream(stream)["last-generated-id"].decode() for stream in names.inputs
    }


@pytest.fixture
def own_client(tmp_path: Path) -> Iterator[redis.Redis]:
    """Of a server that nobody else uses."""
    with EmbeddedServer(tmp_path) as server, connect(server.url, name="test") as client:
        yield client


def test_settings_that_become_unsafe_are_told_and_end_nothing(
    world, own_client: redis.Redis, names: StreamNames
) -> None:
    learning = Learning(world, own_client, names)
    told = []
    for policy in ("noeviction", "allkeys-lru", "noeviction"):
        own_client.config_set("maxmemory-policy", policy)
        learning.now_s += CHECK_S
        learning.read_all()
        told.append(learning.sample("agerank_trainer_log_unsafe"))
    assert told == [0.0, 1.0, 0.0]
