"""Deltas between full versions: bit for bit what a full one would have been, whatever happens to the trainer."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service import checkpoints, lanes
from service.checkpoints import Manifest
from service.training.guard import UNGUARDED, Guard
from service.training.publisher import Publisher

Start = Callable[..., Any]


def test_deltas_and_now_and_then_a_full_version_beside_one(start: Start, parts, bits, content, tmp_path: Path) -> None:
    run = start(tmp_path)
    kinds, older = [run.first.kind], run.first
    for part in parts[:6]:
        manifest = run.publish(part)
        assert manifest is not None
        kinds.append(manifest.kind)
        assert run.current == manifest.version
        assert bits(content(run.store, run.current)) == bits(run.trainer.weights())
        assert (run.published.result, run.publisher.whole) == ("published", run.completed is not None)
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


def test_an_optimiser_that_moves_all_rows_makes_full_versions(start: Start, parts, tmp_path: Path) -> None:
    run = start(tmp_path, optimizer="adam")
    assert [one and one.kind for one in run.follow(parts[:3])] == 3 * ["full"]


@pytest.mark.parametrize("died_after", [3, 4, 5])
def test_a_delta_serves_on_until_a_restarted_trainer_knows_more(
    start: Start, parts, bits, content, tmp_path: Path, died_after: int
) -> None:
    straight = start(tmp_path / "straight")
    straight.follow(parts)
    first = start(tmp_path / "lane")
    first.follow(parts[:died_after])
    served = first.current
    assert served == first.trainer.learner.step
    again = start(tmp_path / "lane")
    assert again.first.version == checkpoints.versions(first.store)[-1] <= served
    assert again.first.base is None
    seen, entries = [], [one for part in parts for one in part]
    for start in range(again.read(entries), len(entries), 25):  # at other steps than before
        found = again.publish(entries[start : start + 25])
        behind = again.trainer.learner.step <= served != again.first.version
        assert again.published.result == ("behind" if behind else "published")
        assert again.current == (served if behind else found.version)
        assert bits(content(again.store, again.current))  # whatever is current can be loaded
        seen.append(found.kind if found else None)
    assert seen[0] == "full"
    assert "delta" in seen
    assert bits(content(again.store, again.current)) == bits(straight.trainer.weights())
    assert bits(again.trainer.state()) == bits(straight.trainer.state())


def test_a_stop_in_good_order_leaves_nothing_to_learn_again(start: Start, parts, bits, tmp_path: Path) -> None:
    run = start(tmp_path)
    run.follow(parts[:2])
    assert not run.publisher.whole
    found = run.publish([], whole=True)
    assert found is not None
    assert (found.kind, found.version, run.publisher.whole) == ("full", run.current, True)
    again = start(tmp_path)
    assert again.first.digest == found.digest
    assert bits(again.trainer.weights()) == bits(run.trainer.weights())


def with_greedy_alone(world, run) -> Publisher:
    """The publisher of a trainer that is started with other strategies."""
    trainer = world.trainer(optimizer="sparse_adam", strategies={"greedy": {"method": "greedy"}})
    graphs = {"greedy": world.graph(trainer.strategies["greedy"])}
    return Publisher(
        run.store, trainer, spec=world.spec_toml, graphs=graphs, keep=9, guard=Guard(UNGUARDED), refused=run.refused
    )


def test_other_strategies_serve_at_once_from_the_full_version(world, start: Start, parts, tmp_path: Path) -> None:
    run = start(tmp_path)
    run.follow(parts[:2])
    assert with_greedy_alone(world, run).start(now_ms=3).version == run.current == 0
    assert checkpoints.deltas(run.store) == {}


def test_other_strategies_take_nothing_from_under_a_pinned_delta(world, start: Start, parts, tmp_path: Path) -> None:
    run = start(tmp_path)
    run.follow(parts[:2])
    pinned = lanes.pin(run.store, True).version
    publisher = with_greedy_alone(world, run)
    publisher.start(now_ms=3)
    assert (checkpoints.verify(run.store, pinned).version, run.current) == (pinned, pinned)
    assert publisher.full_is_due
