"""Ranks that read different partitions learn the same batches as one that reads all, and may take over from it."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from service import deltas
from service.checkpoints import Manifest
from service.errors import CheckpointError
from service.streams import Entry, StreamNames, partition_of
from service.training.ranks import Ranks
from service.training.trainer import Trainer

NAMES = StreamNames("test", partitions=3)


@pytest.fixture(scope="module")
def log(world) -> list[Entry]:
    return world.entries(world.traffic(300), NAMES)


def feed(trainer: Trainer, log: Sequence[Entry], cuts: Sequence[int]) -> None:
    """What of the log is this rank's, in rounds that end at these places."""
    for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True):
        ours = [one for one in log[start:end] if trainer.ranks.owns(partition_of(one.stream))]
        trainer.feed(ours)


class State(dict[str, Any]):
    """All that a checkpoint holds, from rank 0; of others, their weights."""

    def __init__(self, trainer: Trainer) -> None:
        trainer.collect()
        first = trainer.ranks.rank == 0
        super().__init__(
            manifest={"positions": dict(trainer.positions), "data_timestamp_ms": trainer.data_timestamp_ms},
            version=trainer.learner.step,
            weights={name: array.copy() for name, array in trainer.weights().items()},
            state=trainer.state() if first else {},
        )


def resume(world, ranks: Ranks, state: State | None, **changes: Any) -> Trainer:
    """As a process does: rank 0 has the checkpoint, the others have it from rank 0."""
    trainer = world.trainer(ranks=ranks, **changes)
    manifest = None
    if ranks.rank == 0 and state is not None:
        manifest = blank(world, version=state["version"], **state["manifest"])
        trainer.restore(manifest, state["weights"], state["state"])
    trainer.follow(manifest)
    return trainer


def blank(world, **changes: Any) -> Manifest:
    content = {
        "lane": "default",
        "version": 0,
        "created_at_ms": 0,
        "data_timestamp_ms": 0,
        "spec": world.spec_toml,
        "spec_hash": world.spec.hash,
        "network": {},
        "strategies": {},
        "positions": {},
        "metrics": {},
        "click_times_ms": [],
    }
    return msgspec.convert(content | changes, Manifest)


def equal(found: State, expected: State) -> None:
    assert (found["version"], found["manifest"]) == (expected["version"], expected["manifest"])
    for part in "weights", "state":
        assert found[part].keys() == expected[part].keys()
        for name, array in expected[part].items():
            np.testing.assert_array_equal(found[part][name], array, err_msg=name)


def alone(world, log, parts: int) -> State:
    trainer = world.trainer(parts=parts)
    trainer.feed(log)
    assert trainer.learner.step > 20
    return State(trainer)


@pytest.mark.parametrize("size", [1, 2, 4])  # with four, one has no partition and works all the same
def test_ranks_come_to_the_state_of_one_with_as_many_parts(world, log, together, size: int) -> None:
    cuts = [100, 101, 350, 500]

    def work(ranks: Ranks) -> State:
        trainer = world.trainer(ranks=ranks)
        feed(trainer, log, cuts)
        return State(trainer)

    first, *others = together(size, work)
    equal(first, alone(world, log, size))
    for other in others:
        assert all(np.array_equal(other["weights"][name], array) for name, array in first["weights"].items())
        assert other["manifest"] == first["manifest"]


def test_a_restart_with_as_many_ranks_or_parts_changes_no_bit(world, log, together) -> None:
    """One, then two, then one again, as after kills: each has only what the one before has published."""
    third = len(log) // 3

    def run(size: int, state: State | None, start: int, end: int, cut: int) -> State:
        def work(ranks: Ranks) -> State:
            trainer = resume(world, ranks, state, parts=2)
            feed(trainer, log[start:end], [cut])
            return State(trainer)

        return together(size, work)[0]

    state = run(1, None, 0, third, 40)
    twice = run(2, run(2, state, third, third + 50, 20), third + 50, 2 * third, 10)
    once = run(2, state, third, 2 * third, 77)
    equal(twice, once)
    equal(run(1, once, 2 * third, len(log), 30), alone(world, log, 2))


def test_parts_are_as_many_as_ranks(world, together) -> None:
    def work(ranks: Ranks) -> str:
        with pytest.raises(ValueError, match="as many parts") as raised:
            world.trainer(ranks=ranks, parts=3)
        return str(raised.value)

    assert together(2, work) == ["a gradient has as many parts as there are ranks, 2, not 3"] * 2


def test_deltas_of_ranks_are_what_moved_on_any_of_them(world, log, together, bits) -> None:
    def work(ranks: Ranks) -> dict[str, np.ndarray]:
        trainer = world.trainer(ranks=ranks, optimizer="sparse_adam")
        kept = {name: array.copy() for name, array in trainer.weights().items()}
        for part in log[:250], log[250:350], log[350:]:
            feed(trainer, part, [])
            trainer.collect(full=False)
            if ranks.rank == 0:  # it alone publishes
                kept = deltas.apply(kept, trainer.delta() or {})
                trainer.settle()
                assert bits(kept) == bits(trainer.weights())
        return trainer.weights()

    first, second = together(2, work)
    assert bits(first) == bits(second)


def test_ranks_whose_weights_differ_publish_nothing(world, log, together) -> None:
    def work(ranks: Ranks) -> str:
        trainer = world.trainer(ranks=ranks)
        feed(trainer, log, [])
        if ranks.rank:
            trainer.learner.params["mlp.out.bias"].data.add_(1e-6)
        with pytest.raises(CheckpointError) as raised:
            trainer.collect()
        return raised.value.code

    assert together(2, work) == ["ranks_differ"] * 2


def test_what_others_have_joined_since_is_never_left_out(world, log, together) -> None:
    def work(ranks: Ranks) -> None:
        trainer = world.trainer(ranks=ranks)
        trainer.collect()
        trainer.state()
        feed(trainer, log[:50], [])
        with pytest.raises(AssertionError, match="collect first"):
            trainer.state()

    together(2, work)
