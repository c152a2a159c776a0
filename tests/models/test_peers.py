"""Peers that share every batch end with the same bits as each other, and with the weights of one that has it alone."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.optimizers import OPTIMIZERS
from models.peers import Rows, rows_read
from models.registry import beliefs, build
from models.types import Batch

CONFIG = NetworkConfig(hidden=(12, 7, 5), dropout=0.1, gate_hidden=4)
RATE = 1e-2


class Threads:
    """Peers in one process."""

    def __init__(self, size: int) -> None:
        self._barrier = threading.Barrier(size, timeout=5.0)
        self._given: dict[int, torch.Tensor] = {}
        self.size, self.exchanges = size, 0

    def run(self, work: Callable[["Peer"], None]) -> None:
        with ThreadPoolExecutor(self.size) as pool:
            for _ in pool.map(work, [Peer(self, number) for number in range(self.size)]):
                pass

    def add(self, number: int, values: torch.Tensor) -> None:
        self._given[number] = values.clone()
        self._barrier.wait()
        values.copy_(sum(self._given[one] for one in range(self.size)))
        self.exchanges += number == 0
        self._barrier.wait()


class Peer:
    """One of them."""

    def __init__(self, threads: Threads, number: int) -> None:
        self.threads, self.number = threads, number

    def share(self, rows: int) -> slice:
        size = self.threads.size
        return slice(rows * self.number // size, rows * (self.number + 1) // size)

    def add(self, values: torch.Tensor) -> None:
        self.threads.add(self.number, values)


@pytest.fixture
def batches(make_request):
    """(batch, label, context_row): several requests in one, a row of context each, and one batch of a single row."""

    def batch(seed: int, counts: list[int]) -> tuple[Batch, np.ndarray, np.ndarray]:
        requests = [make_request(count, seed=10 * seed + place)[0] for place, count in enumerate(counts)]
        joined = Batch(*(np.concatenate(column) for column in zip(*requests, strict=True)))
        label = (np.random.default_rng(seed).random(sum(counts)) < 0.3).astype(np.float32)
        return joined, label, np.repeat(np.arange(len(counts)), counts)

    return [*(batch(seed, [5, 9, 1, 14]) for seed in range(5)), batch(6, [1]), batch(7, [3, 3])]


def make(spec, optimizer: str) -> Learner:
    """With a belief, which all of them learn from all rows."""
    learned = beliefs([build("online_guideboot", {"members": 2})])
    return Learner(ClickNetwork(spec, CONFIG), learning_rate=RATE, seed=3, optimizer=optimizer, beliefs=learned)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("size", [2, 3])
def test_together_they_learn_what_one_learns_alone(spec, batches, optimizer: str, size: int) -> None:
    alone, peers = make(spec, optimizer), [make(spec, optimizer) for _ in range(size)]
    expected = [alone.learn(*batch) for batch in batches]
    found: dict[int, list[np.ndarray]] = {}

    def work(peer: Peer) -> None:
        learner = peers[peer.number]
        found[peer.number] = [learner.learn(*batch, peers=peer) for batch in batches]

    threads = Threads(size)
    threads.run(work)
    assert threads.exchanges == len(batches)  # one a step
    for number, learner in enumerate(peers):
        assert learner.step == alone.step
        for name, value in alone.weights().items():
            np.testing.assert_array_equal(learner.weights()[name], peers[0].weights()[name])
            np.testing.assert_allclose(learner.weights()[name], value, rtol=0, atol=1e-5)
            assert not np.array_equal(value, make(spec, optimizer).weights()[name])
        for p, mine in zip(expected, found[number], strict=True):
            np.testing.assert_allclose(mine, p, rtol=0, atol=1e-5)


def test_a_part_brings_the_context_that_it_needs(batches) -> None:
    batch, label, context_row = batches[0]
    rows = Rows(Batch(*map(torch.from_numpy, batch)), torch.from_numpy(label), torch.from_numpy(context_row))
    part = rows.part(slice(7, 15))  # of the second request and all of the third
    assert part.context_row.tolist() == [0] * 7 + [1]
    assert part.batch.context_index.tolist() == batch.context_index[1:3].tolist()
    assert part.batch.item_weight.tolist() == batch.item_weight[7:15].tolist()
    assert part.label.tolist() == label[7:15].tolist()
    each = Rows(rows.batch, rows.label, None).part(slice(1, 3))
    assert each.context_row is None
    assert each.batch.context_index.tolist() == batch.context_index[1:3].tolist()


def test_what_a_batch_reads_of_each_table(spec, batches) -> None:
    batch, *_ = batches[0]
    read = rows_read(spec, Batch(*map(torch.from_numpy, batch)))
    sides = (spec.context, batch.context_index), (spec.item, batch.item_index)
    tables = {f"embedding.{table.name}": (table, index) for layout, index in sides for table in layout.tables}
    assert read.keys() == tables.keys()
    for name, (table, index) in tables.items():
        slots = [slot for one in table.columns for slot in range(one.start, one.start + one.field.slots)]
        assert read[name].tolist() == sorted(set(index[:, slots].ravel().tolist()))
