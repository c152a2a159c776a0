"""Deltas between full versions: bit for bit what a full one would have been, whatever happens to the trainer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from service import checkpoints, deltas, lanes
from service.checkpoints import LocalStore, Manifest
from service.streams import START, Entry, StreamNames, order
from service.telemetry import TrainerMetrics
from service.training.guard import UNGUARDED, Guard, Refusal
from service.training.outcome import Progress
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
        manifest = self.publisher.publish(progress, now_ms=2, **options)
        self.completed = self.publisher.complete()
        return manifest

    def read(self, entries: Sequence[Entry]) -> int:
        """How many of them it has been fed."""
        return sum(order(one.position) <= order(self.trainer.positions.get(one.stream, START)) for one in entries)

    def follow(self, parts: Sequence[Sequence[Entry]]) -> list[Manifest | None]:
        """Publishes after each."""
        return [self.publish(one) for one in parts]

    @property
    def current(self) -> int | None:
        return checkpoints.current(self.store)


@pytest.fixture(scope="module")
def parts(world) -> list[list[Entry]]:
    """Of a log: a step or more in each."""
    entries = world.entries(world.traffic(300), NAMES)
    return [entries[:FIRST], *(entries[start : start + PART] for start in range(FIRST, len(entries), PART))]


def content(store: LocalStore, version: int | None) -> dict[str, np.ndarray]:
    """The weights of a version as a scorer makes them."""
    assert version is not None
    bottom, *links = checkpoints.chain(store, checkpoints.load_manifest(store, version))
    weights = checkpoints.load_weights(store, bottom)
    for one in links:
        weights = deltas.apply(weights, checkpoints.load_delta(store, one))
    return weights


def test_deltas_and_now_and_then_a_full_version_beside_one(world, parts, bits, tmp_path: Path) -> None:
    run = Run(world, tmp_path)
    kinds, older = [run.first.kind], run.first
    for part in parts[:6]:
        manifest = run.publish(part)
        assert manifest is not None
        kinds.append(manifest.kind)
        assert run.current == manifest.version
        assert bits(content(run.store, run.current)) == bits(run.trainer.weights())
        assert (run.publisher.serves, run.publisher.whole) == (True, run.completed is not None)
        for one in (manifest, run.completed) if run.completed else (manifest,):
            assert 0 < one.bytes == sum(file.stat().st_size for file in files(tmp_path, one))
        # A scorer that has the version before needs nothing but this delta.
        assert checkpoints.chain(run.store, manifest, known=older) == [manifest]
        older = manifest
    assert kinds == ["full", *["delta"] * 6]
    first, *fulls = checkpoints.versions(run.store)
    assert first == 0
    assert fulls == list(checkpoints.deltas(run.store))[2::3]  # the third of three
    for version in fulls:
        full = checkpoints.load_manifest(run.store, version)
        assert full.kind == "full"
        assert bits(checkpoints.load_weights(run.store, full)).keys() == bits(run.trainer.weights()).keys()


def files(root: Path, manifest: Manifest) -> set[Path]:
    name = f"{manifest.base.full:012d}-{manifest.version:012d}" if manifest.base else f"{manifest.version:012d}"
    found = (root / ("deltas" if manifest.base else "versions") / name).rglob("*")
    return {one for one in found if one.is_file() and one.name != "manifest.json"}


def test_an_optimiser_that_moves_all_rows_makes_full_versions(world, parts, tmp_path: Path) -> None:
    run = Run(world, tmp_path, optimizer="adam")
    assert [one and one.kind for one in run.follow(parts[:3])] == 3 * ["full"]


@pytest.mark.parametrize("died_after", [3, 4, 5])
def test_a_delta_serves_on_until_a_restarted_trainer_knows_more(
    world, parts, bits, tmp_path: Path, died_after: int
) -> None:
    straight = Run(world, tmp_path / "straight")
    straight.follow(parts)
    first = Run(world, tmp_path / "lane")
    first.follow(parts[:died_after])
    served = first.current
    assert served == first.trainer.learner.step
    again = Run(world, tmp_path / "lane")
    assert again.first.version == checkpoints.versions(first.store)[-1] <= served
    assert again.first.base is None
    seen, entries = [], [one for part in parts for one in part]
    for start in range(again.read(entries), len(entries), 25):  # at other steps than before
        found = again.publish(entries[start : start + 25])
        assert again.publisher.behind == (again.trainer.learner.step <= served != again.first.version)
        assert again.publisher.serves == (found is not None and not again.publisher.behind)
        assert again.current == (found.version if found and again.publisher.serves else served)
        assert bits(content(again.store, again.current))  # whatever is current can be loaded
        seen.append(found.kind if found else None)
    assert seen[0] == "full"
    assert "delta" in seen
    assert bits(content(again.store, again.current)) == bits(straight.trainer.weights())
    assert bits(again.trainer.state()) == bits(straight.trainer.state())


def test_a_stop_in_good_order_leaves_nothing_to_learn_again(world, parts, bits, tmp_path: Path) -> None:
    run = Run(world, tmp_path)
    run.follow(parts[:2])
    assert not run.publisher.whole
    found = run.publish([], whole=True)
    assert found is not None
    assert (found.kind, found.version, run.publisher.whole) == ("full", run.current, True)
    again = Run(world, tmp_path)
    assert again.first.digest == found.digest
    assert bits(again.trainer.weights()) == bits(run.trainer.weights())


def test_a_damaged_delta_gives_way_to_the_full_version(world, parts, tmp_path: Path) -> None:
    run = Run(world, tmp_path)
    run.follow(parts[:2])
    (tmp_path / "deltas" / f"{0:012d}-{run.current:012d}" / "delta.safetensors").write_bytes(b"")
    again = Run(world, tmp_path)
    assert (again.first.version, again.current) == (0, 0)
    assert again.refused.labels("hash_mismatch")._value.get() == 1


def with_greedy_alone(world, run: Run) -> Publisher:
    """The publisher of a trainer that is started with other strategies."""
    trainer = world.trainer(optimizer="sparse_adam", strategies={"greedy": {"method": "greedy"}})
    graphs = {"greedy": world.graph(trainer.strategies["greedy"])}
    return Publisher(
        run.store, trainer, spec=world.spec_toml, graphs=graphs, keep=9, guard=Strict(), refused=run.refused
    )


def test_other_strategies_serve_at_once_from_the_full_version(world, parts, tmp_path: Path) -> None:
    run = Run(world, tmp_path)
    run.follow(parts[:2])
    assert with_greedy_alone(world, run).start(now_ms=3).version == run.current == 0
    assert checkpoints.deltas(run.store) == {}


def test_other_strategies_take_nothing_from_under_a_pinned_delta(world, parts, tmp_path: Path) -> None:
    run = Run(world, tmp_path)
    run.follow(parts[:2])
    pinned = lanes.pin(run.store, True).version
    publisher = with_greedy_alone(world, run)
    publisher.start(now_ms=3)
    assert (checkpoints.verify(run.store, pinned).version, run.current) == (pinned, pinned)
    assert publisher.full_is_due


def test_what_was_not_written_is_in_the_next_delta(world, parts, bits, tmp_path: Path) -> None:
    run = Run(world, tmp_path, full_every=9)
    run.guard.refuses = True
    assert run.publish(parts[0]) is None
    assert run.publisher.refusal
    assert run.current == 0
    run.guard.refuses = False
    (tmp_path / "incoming").write_bytes(b"")  # in the way
    with pytest.raises(OSError, match="incoming"):
        run.publish(parts[1])
    (tmp_path / "incoming").unlink()
    found = run.publish(parts[2])
    assert found is not None
    assert found.base is not None
    assert (found.kind, found.base.version) == ("delta", 0)
    assert bits(content(run.store, run.current)) == bits(run.trainer.weights())


def test_a_refused_full_version_is_kept_to_continue_from(world, parts, bits, tmp_path: Path) -> None:
    run = Run(world, tmp_path, full_every=2)
    run.publish(parts[0])
    served = run.current
    run.guard.refuses = True
    kept = run.publish(parts[1])
    assert kept is not None
    assert (kept.kind, kept.refused, run.current) == ("full", "pcoc: too high", served)
    again = Run(world, tmp_path)
    assert (again.first.version, again.current) == (kept.version, served)
    found = again.publish(parts[2])
    assert found is not None
    assert (found.kind, again.current) == ("full", found.version)
    run.guard.refuses = False
    found = run.publish(parts[2])  # as if it had gone on: on what it published last
    assert bits(again.trainer.weights()) == bits(run.trainer.weights())


@pytest.mark.parametrize("full", [False, True])
def test_what_could_not_be_made_current_is_no_base_of_itself(world, parts, bits, tmp_path: Path, full: bool) -> None:
    Run(world, tmp_path)
    run = Run(world, tmp_path, full_every=9)  # a restart, which begins with a full version
    tried, later = (parts[0], parts[1]) if full else (parts[1], parts[2])
    if not full:
        run.publish(parts[0])
    blocked = tmp_path / "current.json.draft"
    blocked.mkdir()
    with pytest.raises(OSError, match="draft"):
        run.publish(tried)
    blocked.rmdir()
    for part in (tried[:0], later):  # it is tried again before anything was learned
        assert run.publish(part)
        assert run.current == run.trainer.learner.step
        assert bits(content(run.store, run.current)) == bits(run.trainer.weights())


def test_a_current_delta_that_is_damaged_gives_way_where_the_newest_was_refused(world, parts, tmp_path: Path) -> None:
    run = Run(world, tmp_path, full_every=2)
    run.publish(parts[0])
    run.guard.refuses = True
    run.publish(parts[1])
    (tmp_path / "deltas" / f"{0:012d}-{run.current:012d}" / "delta.safetensors").write_bytes(b"")
    assert Run(world, tmp_path).first.refused
    assert run.current == 0
