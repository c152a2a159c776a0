"""What was learned from garbage does not serve, is not lost, and ends with the garbage."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
from prometheus_client import CollectorRegistry

from service import checkpoints, deltas
from service.checkpoints import LocalStore
from service.events import Event, encode
from service.streams import Entry, StreamNames
from service.telemetry import TrainerMetrics
from service.training.guard import UNGUARDED, Bounds, Guard
from service.training.outcome import Progress
from service.training.publisher import Publisher
from service.training.reports import tell
from service.training.trainer import Trainer

NARROW = Bounds(window_examples=512, min_examples=512, pcoc_low=0.8, pcoc_high=1.25, normalised_entropy=1.1)
NAMES = StreamNames("test", partitions=2)


class Logged(NamedTuple):
    """As the world logs."""

    time_ms: int
    kind: str
    request_id: str
    payload: bytes


class Loop:
    """A guarded trainer with its publisher, and what is told of it."""

    def __init__(self, world: Any, root: Path, bounds: Bounds = NARROW, full_every: int = 1, **given: Any) -> None:
        self.store, self.metrics = LocalStore(root), TrainerMetrics(CollectorRegistry())
        self.trainer: Trainer = world.trainer(**given)
        graphs = {name: world.graph(strategy) for name, strategy in self.trainer.strategies.items()}
        self.publisher = Publisher(
            self.store,
            self.trainer,
            spec=world.spec_toml,
            graphs=graphs,
            keep=2,
            guard=Guard(bounds),
            full_every=full_every,
            refused=self.metrics.refused,
        )

    def learn(self, entries: list[Entry]) -> str:
        """What became of the version after these entries."""
        outcome, progress = self.trainer.feed(entries), Progress()
        self.publisher.guard.observe(outcome.predictions)
        progress.add(outcome)
        published = self.publisher.publish(progress, now_ms=1)
        tell(self.metrics, self.publisher.guard, published)
        return published.result

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture(scope="module")
def good(world: Any) -> list[Entry]:
    return closed(world, world.traffic(250), 15_000)


@pytest.fixture(scope="module")
def garbage(world: Any) -> list[list[Entry]]:
    """Everything is clicked, then nothing, then everything."""
    parts = []
    for number, clicked in enumerate((True, False, True)):
        start_ms, logged = 20_000 + 5_000 * number, []
        for time_ms in range(start_ms, start_ms + 1_000, 10):
            request_id, items = f"g{time_ms}", [f"item{time_ms % 20}", f"item{time_ms % 7}x", "item9"]
            served = world.served(request_id, items, time_ms=time_ms)
            logged.append(Logged(time_ms, "served", request_id, encode(served)))
            for item in items if clicked else []:
                event = Event(id=f"{request_id}-{item}", type="click", request_id=request_id, item_id=item)
                logged.append(Logged(time_ms, "feedback", request_id, encode(event)))
        parts.append(closed(world, logged, start_ms + 3_000))
    return parts


@pytest.fixture(scope="module")
def better(world: Any) -> list[Entry]:
    return closed(world, world.traffic(300, seed=9, start_ms=40_000), 50_000)


def closed(world: Any, logged: list[Logged], until_ms: int) -> list[Entry]:
    """Entries, and one of another lane by which all windows have closed."""
    last = world.served(f"last{until_ms}", time_ms=until_ms, lane="another")
    return [*world.entries(logged, NAMES), world.entry(last, until_ms, NAMES.inputs[0])]


@pytest.fixture
def loop(world: Any, tmp_path: Path, good: list[Entry], garbage: list[list[Entry]]) -> Loop:
    """After a good version and three that were learned from garbage."""
    loop = Loop(world, tmp_path)
    loop.publisher.start(now_ms=0)
    assert loop.learn(good) == "published"
    assert [loop.learn(part) for part in garbage] == ["refused"] * 3
    return loop


def test_garbage_is_kept_aside_with_its_reason_and_told(loop: Loop) -> None:
    served, kept = checkpoints.current(loop.store), checkpoints.versions(loop.store, refused=True)
    assert checkpoints.versions(loop.store) == [0, served]
    assert len(kept) == 2 == loop.publisher._keep
    assert kept[-1] == loop.trainer.learner.step
    manifest = checkpoints.verify(loop.store, kept[-1])
    assert manifest.refused.partition(": ")[0] in ("pcoc", "normalised_entropy")
    assert loop.value("agerank_publishes_total", result="refused") == 3
    codes = ("pcoc", "normalised_entropy")
    assert sum(loop.value("agerank_guard_refused_total", code=code) or 0 for code in codes) == 3
    assert loop.value("agerank_guard_refused_in_a_row") == 3
    assert loop.value("agerank_guard_pcoc") == loop.publisher.guard.pcoc
    assert loop.value("agerank_guard_normalised_entropy") == loop.publisher.guard.normalised_entropy


def test_after_the_garbage_versions_serve_again(loop: Loop, better: list[Entry]) -> None:
    assert loop.learn(better) == "published"
    assert checkpoints.current(loop.store) == loop.trainer.learner.step
    assert loop.value("agerank_guard_refused_in_a_row") == 0


def test_a_restart_goes_on_from_the_refused_version(
    world: Any, loop: Loop, tmp_path: Path, better: list[Entry], bits: Any
) -> None:
    served = checkpoints.current(loop.store)
    again = Loop(world, tmp_path)
    assert again.publisher.start(now_ms=9).version == loop.trainer.learner.step
    assert checkpoints.current(again.store) == served
    assert again.publisher.guard.in_a_row == 3
    assert (again.learn(better), loop.learn(better)) == ("published", "published")
    assert bits(again.trainer.weights()) == bits(loop.trainer.weights())
    assert bits(again.publisher.guard.state()) == bits(loop.publisher.guard.state())


def test_without_current_json_a_restart_serves_the_version_before_the_refused_ones(
    world: Any, loop: Loop, tmp_path: Path
) -> None:
    served = checkpoints.current(loop.store)
    (tmp_path / "current.json").write_bytes(b"{")
    Loop(world, tmp_path).publisher.start(now_ms=9)
    assert checkpoints.current(loop.store) == served


def test_while_a_version_is_pinned_the_others_are_written_and_wait(
    world: Any, tmp_path: Path, good: list[Entry], better: list[Entry]
) -> None:
    loop = Loop(world, tmp_path, UNGUARDED)
    loop.publisher.start(now_ms=0)
    first = checkpoints.load_manifest(loop.store, 0)
    checkpoints.set_current(loop.store, first, pinned=True)
    assert loop.learn(good) == "pinned"
    assert checkpoints.versions(loop.store) == [0, loop.trainer.learner.step]
    again = Loop(world, tmp_path, UNGUARDED)
    assert again.publisher.start(now_ms=0).version == loop.trainer.learner.step
    assert checkpoints.current(loop.store) == 0, "a restart respects it, too"
    checkpoints.set_current(loop.store, first)
    assert again.learn(better) == "published"
    assert checkpoints.current(loop.store) == again.trainer.learner.step


def test_a_delta_that_is_refused_leaves_nothing_and_the_next_that_passes_holds_it_all(
    world: Any, tmp_path: Path, good: list[Entry], garbage: list[list[Entry]], better: list[Entry], bits: Any
) -> None:
    loop = Loop(world, tmp_path, full_every=3, optimizer="sparse_adam")
    loop.publisher.start(now_ms=0)
    assert loop.learn(good) == "published"
    served = checkpoints.current(loop.store)
    assert [loop.learn(part) for part in garbage] == ["refused"] * 3
    assert list(checkpoints.deltas(loop.store)) == [served]
    (kept,) = checkpoints.versions(loop.store, refused=True)
    assert kept > served == checkpoints.current(loop.store), "the second of the three was due in full"
    loop.trainer.feed(better)  # a sparse optimizer takes longer to forget
    assert loop.learn(closed(world, world.traffic(300, seed=11, start_ms=60_000), 70_000)) == "published"
    found = checkpoints.load_manifest(loop.store, loop.trainer.learner.step)
    assert found.base is not None
    assert found.base.version == served
    full, *later = checkpoints.chain(loop.store, found)
    weights = checkpoints.load_weights(loop.store, full)
    for one in later:
        weights = deltas.apply(weights, checkpoints.load_delta(loop.store, one))
    assert bits(weights) == bits(loop.trainer.weights())
