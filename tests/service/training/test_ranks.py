"""Ranks over gloo: what one gives all have."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.distributed import HashStore, TCPStore

from service.training.ranks import Ranks, joined, own_store

SWAP = """
import os, signal, sys, time
import torch
import torch.distributed
from service.training.ranks import Ranks

store, rank, numbers = sys.argv[1], int(sys.argv[2]), 20_000_000
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
ranks = Ranks(torch.distributed.group.WORLD)
arrived = ranks.swap([torch.zeros(0), torch.zeros(0 if rank else numbers)], [numbers if rank else 0, 0])
if rank:
    time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGSTOP)
try:
    arrived()
except ConnectionError:
    raise SystemExit(3) from None
"""


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


def test_a_rank_that_is_killed_in_the_middle_of_a_message_ends_who_sends_it(tmp_path) -> None:
    """Of which gloo would send the rest for a day."""
    command = [sys.executable, "-c", SWAP, str(tmp_path / "store")]
    with subprocess.Popen([*command, "0"]) as first, subprocess.Popen([*command, "1"]) as second:
        try:
            os.waitid(os.P_PID, second.pid, os.WSTOPPED | os.WNOWAIT)
            time.sleep(0.5)  # until no more of it is taken
            second.kill()
            assert first.wait(20) == 3
        finally:
            first.kill()
            second.kill()


def test_they_rest_where_nothing_is_to_be_learned(together, world, monkeypatch) -> None:
    stood: Counter[str] = Counter()

    def late(ranks: Ranks) -> None:
        trainer = world.trainer(ranks=ranks)
        for what, work in (
            ("rests", lambda: trainer.feed([])),
            ("stands", lambda: ranks.swap([torch.ones(1)] * 2, [1] * 2)()),
        ):
            ranks.gather(b"", resting=True)
            now.append(what)
            time.sleep(0.1 * ranks.rank)
            work()

    now: list[str] = []
    monkeypatch.setattr(os, "sched_yield", lambda: stood.update(now[-1:]))
    together(2, late)
    assert list(stood) == ["stands"]


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
