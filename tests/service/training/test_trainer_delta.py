"""Whatever a trainer is fed between two versions: the older one and the delta are the newer one, bit for bit."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service import deltas
from service.streams import StreamNames
from service.training.trainer import Trainer

NAMES = StreamNames("test", partitions=2)


@pytest.fixture(scope="module")
def log(world):
    return world.entries(world.traffic(120), NAMES)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, 300), max_size=8))
def test_base_and_deltas_are_the_full_weights(world, log, bits, cuts: set[int]) -> None:
    trainer = world.trainer(optimizer="sparse_adam")
    kept = copied(trainer)
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(log)], strict=True):
        trainer.feed(log[start:end])
        delta = trainer.delta()
        assert delta is not None
        kept = deltas.apply(kept, delta)
        assert bits(kept) == bits(trainer.weights())
        trainer.settle()
    assert trainer.learner.step > 5


def test_adam_moves_all(world, log) -> None:
    trainer = world.trainer()
    trainer.feed(log)
    trainer.settle()
    assert trainer.delta() is None


def copied(trainer: Trainer) -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in trainer.weights().items()}
