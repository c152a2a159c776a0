"""Rounds: ranks that read at different speeds come to one order of the log, and none waits for what never comes."""

import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import redis

from service.appends import append_batch
from service.streams import Entry, LogReader, StreamNames, order
from service.training import rounds
from service.training.ranks import Ranks
from service.training.rounds import Rounds, Word

PARTITIONS = 3
ENTRIES = 200

Place = tuple[int, int, str]


@pytest.fixture
def names(names: StreamNames) -> StreamNames:
    return StreamNames(names.inputs[0].partition(":")[0], PARTITIONS)


def place(entry: Entry) -> Place:
    return *order(entry.position), entry.stream


def log(names: StreamNames, streams: Sequence[str]) -> list[tuple[str, bytes, str]]:
    """In these streams, most in the first: several a millisecond, and some of different streams at one place."""
    generator = np.random.default_rng(0)
    share = 0.5 ** np.arange(1, len(streams) + 1)
    found = {
        (time_ms, int(generator.integers(3)), streams[generator.choice(len(streams), p=share / share.sum())])
        for time_ms in np.sort(generator.integers(1, 60, ENTRIES)).tolist()
    }
    return [(stream, b"", f"{ms}-{seq}") for ms, seq, stream in sorted(found)]


def follow(
    client: redis.Redis, names: StreamNames, enough: int, *, count: Sequence[int], pause_s: float = 0.0
) -> Callable[[Ranks], Any]:
    """What a rank does until all have been given so many entries. Returns its (rounds, most entries kept back)."""

    def work(ranks: Ranks) -> tuple[list[list[Place]], int]:
        reader = LogReader(client, names, owns=ranks.owns, count=count[ranks.rank])
        ours, given, kept, seen = Rounds(reader, ranks), [], 0, 0
        while seen < enough:
            if ranks.rank == 0:
                time.sleep(pause_s)
            ours.read(block_ms=500)
            now, they = ours.agree(Word())
            assert they == Word()
            given.append([place(entry) for entry in now])
            kept = max(kept, len(ours._ahead))
            seen += sum(map(int, ranks.gather(str(len(now)).encode())))
        assert ours.level
        return given, kept

    return work


@pytest.mark.parametrize(
    ("size", "count", "pause_s"),
    [(1, [7], 0.0), (2, [3, 50], 0.0), (2, [1_000, 1_000], 0.02), (3, [2, 9, 1_000], 0.0), (4, [5] * 4, 0.0)],
)
def test_the_order_is_that_of_the_log_however_fast_each_reads(
    client: redis.Redis, names: StreamNames, together, size: int, count: list[int], pause_s: float
) -> None:
    """With four, one rank has no partition."""
    logged = log(names, names.inputs)
    append_batch(client, logged)
    found = together(size, follow(client, names, len(logged), count=count, pause_s=pause_s))
    rounds_of_all = zip(*(given for given, _ in found), strict=True)
    each = [sorted(place for part in parts for place in part) for parts in rounds_of_all]
    assert [place for part in each for place in part] == [(*order(at), stream) for stream, _, at in logged]
    # Entries of one place are of one round, so that their streams' names can decide.
    assert all(a[-1][:2] < b[0][:2] for a, b in pairwise([part for part in each if part]))


def test_silent_partitions_hold_nobody_up(client: redis.Redis, names: StreamNames, together) -> None:
    logged = log(names, names.inputs[2:4])  # of rank 1
    append_batch(client, logged)
    (idle, _), (busy, _) = together(2, follow(client, names, len(logged), count=[1_000, 1_000]))
    assert not any(idle)
    assert sum(map(len, busy)) == len(logged)


def test_who_is_far_ahead_reads_no_further(
    client: redis.Redis, names: StreamNames, together, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "AHEAD", 10)
    logged = log(names, names.inputs)
    append_batch(client, logged)
    found = together(2, follow(client, names, len(logged), count=[1, 20]))
    streams = 2  # of rank 1
    assert 0 < found[1][1] < 10 + 20 * streams


def test_what_the_ranks_come_to(client: redis.Redis, names: StreamNames, together) -> None:
    """One may stop all, all together are drained, and rank 0 says when to publish."""
    words = [
        [Word(), Word(stop=True)],
        [Word(drained=True), Word()],
        [Word(drained=True), Word(drained=True)],
        [Word(due=True, full=True), Word()],
        [Word(), Word(due=True, full=True)],
    ]

    def work(ranks: Ranks) -> list[Word]:
        ours = Rounds(LogReader(client, names, owns=ranks.owns), ranks)
        return [ours.agree(each[ranks.rank])[1] for each in words]

    expected = [Word(stop=True), Word(), Word(drained=True), Word(due=True, full=True), Word()]
    assert together(2, work) == [expected, expected]


def test_a_rank_that_cannot_read_holds_back_what_lies_behind_it(
    client: redis.Redis, names: StreamNames, together
) -> None:
    """Its Redis is gone for some rounds: nothing is fed that what it reads later could precede."""
    logged = log(names, names.inputs)
    append_batch(client, logged)

    def work(ranks: Ranks) -> tuple[int, int]:
        ours = Rounds(LogReader(client, names, owns=ranks.owns), ranks)
        early = 0
        for _ in range(5):
            if ranks.rank == 0:
                ours.read(block_ms=0)
            early += len(ours.agree(Word())[0])
        ours.read(block_ms=0)
        return early, len(ours.agree(Word())[0])

    found = together(2, work)
    assert [early for early, _ in found] == [0, 0]
    assert sum(late for _, late in found) == len(logged)


def test_a_rank_that_is_gone_ends_the_round_of_the_others(client: redis.Redis, names: StreamNames, together) -> None:
    def work(ranks: Ranks) -> str:
        ours = Rounds(LogReader(client, names, owns=ranks.owns), ranks)
        ours.agree(Word())
        if ranks.rank:
            return "gone"
        with pytest.raises(OSError, match="another rank is gone"):
            ours.agree(Word())
        return "raised"

    assert together(2, work) == ["raised", "gone"]
