"""Peers that share every batch end with the same bits as each other, and with the weights of one that has it alone."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pytest
import torch

from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.optimizers import OPTIMIZERS
from models.peers import Rows
from models.registry import beliefs, build
from models.types import Batch

T = TypeVar("T")

CONFIG = NetworkConfig(hidden=(12, 7, 5), dropout=0.1, gate_hidden=4)
RATE = 1e-2


class Threads:
    """Peers in one process."""

    def __init__(self, size: int) -> None:
        self.barrier = threading.Barrier(size, timeout=120.0)  # a loaded machine may keep a thread waiting
        self.given: list[Sequence[torch.Tensor]] = [()] * size
        self.size, self.exchanges = size, 0

    def run(self, work: Callable[["Peer"], T]) -> list[T]:
        with ThreadPoolExecutor(self.size) as pool:
            return list(pool.map(lambda peer: self._done(work, peer), [Peer(self, rank) for rank in range(self.size)]))

    def _done(self, work: Callable[["Peer"], T], peer: "Peer") -> T:
        try:
            return work(peer)
        except BaseException:
            self.barrier.abort()  # so that nobody waits for a peer that failed
            raise


class Peer:
    """One of them."""

    def __init__(self, threads: Threads, rank: int) -> None:
        self.threads, self.rank, self.size = threads, rank, threads.size

    def swap(self, given: Sequence[torch.Tensor], sizes: Sequence[int]) -> Callable[[], list[torch.Tensor]]:
        self.threads.given[self.rank] = [one.clone() for one in given]
        self.threads.exchanges += self.rank == 0
        self.threads.barrier.wait()
        found = [one[self.rank] for one in self.threads.given]
        self.threads.barrier.wait()
        assert [len(one) for one in found] == list(sizes)
        return lambda: found


@pytest.fixture
def batches(make_request):
    """(batch, label, context_row): several requests in one, a row of context each, and one batch of a single row."""

    def batch(seed: int, counts: list[int]) -> tuple[Batch, np.ndarray, np.ndarray]:
        requests = [make_request(count, seed=10 * seed + place)[0] for place, count in enumerate(counts)]
        joined = Batch(*(np.concatenate(column) for column in zip(*requests, strict=True)))
        label = (np.random.default_rng(seed).random(sum(counts)) < 0.3).astype(np.float32)
        return joined, label, np.repeat(np.arange(len(counts)), counts)

    return [*(batch(seed, [5, 9, 1, 14]) for seed in range(5)), batch(6, [1]), batch(7, [3, 3])]


def make(spec, optimizer: str, peers: Peer | None = None, *, members: int = 2, parts: int | None = None) -> Learner:
    """With a belief, which all of them learn from all rows, or without."""
    learned = beliefs([build("online_guideboot", {"members": members})] if members else [])
    network = ClickNetwork(spec, CONFIG)
    return Learner(network, learning_rate=RATE, seed=3, optimizer=optimizer, beliefs=learned, peers=peers, parts=parts)


def state_of(peer: Peer, learner: Learner) -> dict[str, np.ndarray]:
    """As a version has it."""
    shares = [learner.share()]
    peer.threads.given[peer.rank] = shares
    peer.threads.barrier.wait()
    if peer.rank == 0:
        learner.complete([one for (one,) in peer.threads.given[1:]])
    peer.threads.barrier.wait()
    return learner.state() if peer.rank == 0 else {}


def assert_same(rows: dict[str, np.ndarray] | None, expected: dict[str, np.ndarray] | None) -> None:
    assert (rows is None) == (expected is None)
    for name, one in (expected or {}).items():
        np.testing.assert_array_equal((rows or {})[name], one)


@pytest.mark.parametrize("members", [0, 2])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("size", [2, 3])
def test_together_they_learn_what_one_learns_alone(spec, batches, optimizer: str, size: int, members: int) -> None:
    alone = make(spec, optimizer, members=members, parts=size)
    expected = [alone.learn(*batch) for batch in batches]
    whole = make(spec, optimizer, members=members)
    fresh = whole.weights()
    for batch in batches:
        whole.learn(*batch)
    threads = Threads(size)

    def work(peer: Peer) -> tuple[Learner, list[np.ndarray]]:
        learner = make(spec, optimizer, peer, members=members)
        return learner, [learner.learn(*batch) for batch in batches]

    found = threads.run(work)
    assert threads.exchanges == 2 * len(batches)  # two a step
    threads.run(lambda peer: found[peer.rank][0].level())
    for learner, predicted in found:
        assert learner.step == alone.step
        assert_same(learner.touched(), alone.touched())
        for name, value in alone.weights().items():
            np.testing.assert_array_equal(learner.weights()[name], value)
            np.testing.assert_allclose(learner.weights()[name], whole.weights()[name], rtol=0, atol=1e-5)
            assert not np.array_equal(value, fresh[name])
        for p, mine in zip(expected, predicted, strict=True):
            np.testing.assert_array_equal(mine, p)
    state, *_ = threads.run(lambda peer: state_of(peer, found[peer.rank][0]))
    assert state.keys() == alone.state().keys()
    for name, value in alone.state().items():
        np.testing.assert_array_equal(state[name], value)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_restored_peers_go_on_bit_for_bit(spec, batches, optimizer: str) -> None:
    threads = Threads(2)

    def straight(peer: Peer) -> dict[str, np.ndarray]:
        learner = make(spec, optimizer, peer)
        for batch in batches:
            learner.learn(*batch)
        learner.level()
        return learner.weights() | state_of(peer, learner)

    def stopped(peer: Peer) -> dict[str, np.ndarray]:
        learner, kept = make(spec, optimizer, peer), {}
        for batch in batches[:3]:
            learner.learn(*batch)
        learner.level()
        kept[peer.rank] = learner.weights(), state_of(peer, learner), learner.step
        peer.threads.given[peer.rank] = [kept]
        peer.threads.barrier.wait()
        weights, state, step = peer.threads.given[0][0][0]
        again = make(spec, optimizer, peer)
        again.restore(weights, state, step)
        if peer.rank == 0:
            assert all(np.array_equal(value, state[name]) for name, value in again.state().items())
        for batch in batches[3:]:
            again.learn(*batch)
        again.level()
        return again.weights() | state_of(peer, again)

    expected, found = threads.run(straight), threads.run(stopped)
    for one, other in zip(found, expected, strict=True):
        assert one.keys() == other.keys()
        assert all(np.array_equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("optimizer", ["adam", "sparse_adam"])
def test_what_is_learned_again_is_seen_alike_by_all(spec, batches, optimizer: str) -> None:
    """Members that look at the click model's tables learn from a history: from rows that the batch does not read."""
    method = build("guideboot", {"members": 2, "tables": "shared", "history": 60, "replayed": 20})

    def work(peer: Peer | None) -> dict[str, np.ndarray]:
        learner = Learner(
            ClickNetwork(spec, CONFIG),
            learning_rate=RATE,
            seed=3,
            optimizer=optimizer,
            beliefs=beliefs([method]),
            peers=peer,
        )
        for batch in batches:
            learner.learn(*batch)
        learner.level()
        return learner.weights()

    first, second = Threads(2).run(work)
    for name, value in work(None).items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], value, rtol=0, atol=1e-5)


def test_a_part_brings_the_context_that_it_needs(batches) -> None:
    batch, label, context_row = batches[0]
    rows = Rows(Batch(*map(torch.from_numpy, batch)), torch.from_numpy(label), torch.from_numpy(context_row))
    part = rows.part(slice(7, 15))  # of the second request and all of the third
    assert part.context_row.tolist() == [0] * 7 + [1]
    assert part.batch.context_index.tolist() == batch.context_index[1:3].tolist()
    assert part.batch.item_weight.tolist() == batch.item_weight[7:15].tolist()
    assert part.label.tolist() == label[7:15].tolist()
    nobody = rows.part(slice(7, 7))
    assert [len(one) for one in (*nobody.batch, nobody.label, nobody.context_row)] == [0] * 6
    each = Rows(rows.batch, rows.label, None).part(slice(1, 3))
    assert each.context_row is None
    assert each.batch.context_index.tolist() == batch.context_index[1:3].tolist()
