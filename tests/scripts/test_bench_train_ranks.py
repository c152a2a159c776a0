"""Several trainers against one: they learn the same from their parts of the log."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from torch.distributed import HashStore, ProcessGroupGloo

from models.types import Array
from scripts.bench.learning import new_learner
from scripts.bench.traffic import entries
from scripts.bench.train_ranks import _difference, _learn
from service.streams import StreamNames, partition_of
from service.training.ranks import Ranks

BATCH = 256


def test_two_ranks_learn_what_one_learns() -> None:
    log = entries(120, StreamNames("bench", 2))

    def weights(ranks: Ranks) -> dict[str, Array]:
        learner = new_learner("sparse_adam", ranks, parts=2)
        parts = [[one for one in log if ranks.owns(partition_of(one.stream))]]
        assert _learn(learner, BATCH, ranks, parts) == learner.step * BATCH > 4 * BATCH
        learner.level()
        return learner.weights()

    store = HashStore()
    with ThreadPoolExecutor(2) as pool:
        two = list(pool.map(lambda rank: weights(Ranks(ProcessGroupGloo(store, rank, 2))), range(2)))
    one = weights(Ranks())
    assert _difference(one, two) == 0.0
    assert _difference(one, [new_learner("sparse_adam").weights()]) > 0.0


def test_the_largest_difference_counts_wherever_it_is() -> None:
    expected = {"a": np.zeros(2), "b": np.zeros(1)}
    assert _difference(expected, [expected, {"a": np.array([0.0, 0.5]), "b": np.array([-2.0])}]) == 2.0
