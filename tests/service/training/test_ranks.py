"""Ranks over gloo: what one gives all have."""

import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributed import HashStore, TCPStore

from service.training.ranks import Ranks, joined, own_store


def test_one_alone_talks_to_nobody() -> None:
    with joined() as ranks:
        assert (ranks.rank, ranks.size) == (0, 1)
        assert ranks.peers is None
        assert all(ranks.owns(partition) for partition in range(3))
        assert ranks.gather(b"one") == ranks.collect(b"one") == [b"one"]
        assert ranks.spread(b"one") == b"one"
        assert [one.tolist() for one in ranks.swap([torch.ones(3)], [3])()] == [[1, 1, 1]]


@pytest.mark.parametrize("size", [2, 3])
def test_partitions_are_divided(together, size: int) -> None:
    all_ranks = together(size, lambda ranks: (ranks.rank, ranks.size, ranks))
    assert [one[:2] for one in all_ranks] == [(rank, size) for rank in range(size)]
    ranks = [one for *_, one in all_ranks]
    for partition in range(7):
        assert sum(one.owns(partition) for one in ranks) == 1


def test_what_each_gives_is_the_same_everywhere(together) -> None:
    given = [b"short", b"", os.urandom(10_000)]

    def work(ranks: Ranks) -> object:
        short = ranks.gather(bytes([ranks.rank]) * ranks.rank)
        return ranks.gather(given[ranks.rank]), short, ranks.spread(given[2 - ranks.rank])

    assert together(3, work) == [(given, [b"", b"\1", b"\2\2"], given[2])] * 3
    assert together(3, lambda ranks: ranks.collect(given[ranks.rank])) == [given, [], []]
    assert together(2, lambda ranks: ranks.collect(b"")) == [[b"", b""], []]


def test_each_has_what_the_others_gave_it(together) -> None:
    """From rank a to rank b go 3 a + b numbers, so some gives and some gets nothing."""

    def given(one: int, other: int) -> torch.Tensor:
        return torch.full((3 * one + other,), float(10 * one + other))

    def work(ranks: Ranks) -> list[list[float]]:
        ours = [given(ranks.rank, other) for other in range(3)]
        return [one.tolist() for one in ranks.swap(ours, [3 * other + ranks.rank for other in range(3)])()]

    assert together(3, work) == [[given(other, rank).tolist() for other in range(3)] for rank in range(3)]


def test_ranks_that_are_restarted_do_not_call_those_before() -> None:
    """torchrun gives them the same store again, and rank 0 may be the last to come."""
    given = HashStore()
    before = own_store(given, "localhost", 0)
    before.set("gloo", "an address of the dead")
    del before
    with ThreadPoolExecutor() as pool:
        early = pool.submit(own_store, given, "localhost", 1)
        first = own_store(given, "localhost", 0)
        others = [early.result(30), own_store(given, "localhost", 2)]
    assert not first.check(["gloo"])
    first.set("gloo", "0")
    assert [one.get("gloo") for one in others] == [b"0"] * 2
    assert all(isinstance(one, TCPStore) for one in others)


def test_a_signal_ends_a_rank_that_waits_for_one_that_never_comes(spec_file, tmp_path, wait_until) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    group = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    settings = {"AGERANK_FEATURES": str(spec_file), "AGERANK_DATA_DIR": str(tmp_path / "data")}

    def waits() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("localhost", port)) == 0

    with subprocess.Popen([sys.executable, "-m", "service.training"], env={**os.environ, **group, **settings}) as rank:
        try:
            wait_until(waits, "rank 0 waits")
            time.sleep(0.5)
            rank.terminate()
            assert rank.wait(20) == -signal.SIGTERM
        finally:
            rank.kill()
