"""The queue in front of a device: who is computed with whom, in which order, and who is not computed at all."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from models.types import Batch, Scores
from service.errors import Unavailable
from service.scoring.engines import SeededNoise
from service.scoring.engines.batching import Batcher, Request
from service.telemetry import ScorerMetrics


class Recorder:
    """Answers every row with its request's lambda, and remembers its batches. Begins only with its door open."""

    def __init__(self, *, closed: bool = False) -> None:
        self.batches: list[list[float]] = []
        self.entered, self.door = threading.Event(), threading.Event()
        if not closed:
            self.door.set()

    def run(self, requests: Sequence[Request]) -> list[Scores]:
        self.entered.set()
        assert self.door.wait(20.0)
        self.batches.append([one.lambda_ for one in requests])
        return [Scores(*([one.lambda_ + np.arange(one.rows) / 1_000] * 6)) for one in requests]


class Broken:
    def run(self, requests: Sequence[Request]) -> list[Scores]:
        raise RuntimeError("the device is gone")


@pytest.fixture
def make(metrics: ScorerMetrics):
    """A batcher with some other limits than the usual."""

    def make(wait_s: float = 0.0, max_rows: int = 100, max_requests: int = 4, grace_s: float = 20.0) -> Batcher:
        return Batcher(wait_s=wait_s, max_rows=max_rows, max_requests=max_requests, grace_s=grace_s, metrics=metrics)

    return make


def request(name: float, rows: int = 10) -> Request:
    index, weight = np.zeros((rows, 1), np.int32), np.zeros((rows, 1), np.float32)
    noise = SeededNoise([], request_seed=0, version=0, item_hash=np.arange(rows, dtype=np.uint64))
    return Request(Batch(index[:1], weight[:1], index, weight), noise, name, np.zeros(rows, np.int64))


async def queue(batcher: Batcher, group: Recorder, *requests: Request) -> list[asyncio.Task[Scores]]:
    """In this order."""
    tasks = [asyncio.create_task(batcher.submit(group, one)) for one in requests]
    await asyncio.sleep(0)
    return tasks


async def occupy(batcher: Batcher) -> tuple[Recorder, asyncio.Task[Scores]]:
    """Keeps the device at work until the group's door opens, so that a queue builds up."""
    busy = Recorder(closed=True)
    (task,) = await queue(batcher, busy, request(0))
    await asyncio.to_thread(busy.entered.wait, 20.0)
    return busy, task


async def test_what_waits_is_computed_together_and_oldest_first(make, metrics: ScorerMetrics) -> None:
    one, other = Recorder(), Recorder()
    async with make() as batcher:
        busy, _ = await occupy(batcher)
        tasks = []
        for group, name in ((one, 1), (other, 2), (one, 3), (other, 4), (one, 5)):
            tasks += await queue(batcher, group, request(name))
        busy.door.set()
        found = await asyncio.gather(*tasks)
    assert [scores.score[0] for scores in found] == [1, 2, 3, 4, 5]
    assert (one.batches, other.batches) == ([[1, 3, 5]], [[2, 4]])
    sample = metrics.registry.get_sample_value
    assert (sample("agerank_batch_requests_count"), sample("agerank_batch_requests_sum")) == (3, 6)
    assert (sample("agerank_batch_rows_sum"), sample("agerank_batch_wait_seconds_count")) == (60, 6)


async def test_a_batch_ends_at_the_first_that_does_not_fit(make) -> None:
    group = Recorder()
    async with make(max_rows=100, max_requests=4) as batcher:
        busy, _ = await occupy(batcher)
        sizes = {1: 60, 2: 30, 3: 20, 4: 1, 5: 1, 6: 1, 7: 1, 8: 99}
        tasks = await queue(batcher, group, *(request(name, rows) for name, rows in sizes.items()))
        busy.door.set()
        found = await asyncio.gather(*tasks)
    assert group.batches == [[1, 2], [3, 4, 5, 6], [7, 8]]  # by rows, by requests, and neither overtaken
    assert [len(scores.score) for scores in found] == list(sizes.values())


async def test_a_larger_request_is_divided(make) -> None:
    group = Recorder()
    async with make(max_rows=100) as batcher:
        scores = await batcher.submit(group, request(7, rows=250))
    assert group.batches == [[7], [7], [7]]
    np.testing.assert_array_equal(scores.p_click, 7 + np.r_[0:100, 0:100, 0:50] / 1_000)


async def test_an_idle_device_waits_for_company(make) -> None:
    group = Recorder()
    async with make(wait_s=20.0, max_requests=2) as batcher:
        (first,) = await queue(batcher, group, request(1))
        await asyncio.sleep(0.05)
        assert not first.done()
        await asyncio.gather(first, *await queue(batcher, group, request(2)))
    assert group.batches == [[1, 2]]


async def test_the_wait_for_company_is_bounded(make) -> None:
    async with make(wait_s=0.02) as batcher:
        assert (await batcher.submit(Recorder(), request(3))).score[0] == 3


async def test_what_was_given_up_is_never_computed(make, metrics: ScorerMetrics) -> None:
    group = Recorder()
    async with make() as batcher:
        busy, at_work = await occupy(batcher)
        left, late, kept = await queue(batcher, group, request(1), request(2), request(3))
        left.cancel()  # a caller that is gone
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):  # a deadline
                await late
        at_work.cancel()  # too late: its batch has begun
        await asyncio.sleep(0.01)
        busy.door.set()
        assert (await kept).score[0] == 3
    assert group.batches == [[3]]
    assert busy.batches == [[0]]
    assert metrics.registry.get_sample_value("agerank_batch_dropped_total") == 2


async def test_a_fault_reaches_every_caller_of_its_batch_and_no_other(make) -> None:
    broken, group = Broken(), Recorder()
    async with make() as batcher:
        busy, _ = await occupy(batcher)
        doomed = [asyncio.create_task(batcher.submit(broken, request(name))) for name in (1, 2)]
        (fine,) = await queue(batcher, group, request(3))
        busy.door.set()
        for task in doomed:
            with pytest.raises(RuntimeError, match="the device is gone"):
                await task
        assert (await fine).score[0] == 3


async def test_on_closing_what_is_queued_is_answered_and_nothing_more_taken(make) -> None:
    group = Recorder()
    async with make(wait_s=20.0) as batcher:
        tasks = await queue(batcher, group, request(1), request(2))
    assert [scores.score[0] for scores in await asyncio.gather(*tasks)] == [1, 2]
    with pytest.raises(Unavailable) as refused:
        await batcher.submit(group, request(3))
    assert refused.value.code == "not_ready"


async def test_a_device_that_hangs_holds_up_no_end(make) -> None:
    async with make(grace_s=0.05) as batcher:
        busy, hanging = await occupy(batcher)
        kept, left = await queue(batcher, Recorder(), request(1), request(2))
        left.cancel()
    with pytest.raises(Unavailable):
        await kept
    assert not hanging.done()
    busy.door.set()
    await hanging


async def test_refused_before_the_worker_wakes(make) -> None:
    """The grace is over by the time it has left its wait for company."""
    batcher = make(wait_s=20.0, grace_s=0.01)
    await batcher.__aenter__()
    (left,) = await queue(batcher, Recorder(), request(1))
    await asyncio.sleep(0.05)
    with batcher._changed:  # so that it cannot
        await batcher.__aexit__(None, None, None)
    with pytest.raises(Unavailable):
        await left
    await asyncio.to_thread(batcher._thread.join, 20.0)


async def test_under_a_storm_everyone_gets_their_own(make) -> None:
    groups, rng = [Recorder() for _ in range(3)], np.random.default_rng(0)
    async with make(wait_s=0.0005) as batcher:

        async def client(name: int) -> None:
            rows = int(rng.integers(1, 250))
            await asyncio.sleep(rng.random() * 0.05)
            try:
                async with asyncio.timeout(None if name % 3 else rng.random() * 0.01):
                    scores = await batcher.submit(groups[name % 2], request(name, rows))
            except TimeoutError:
                return
            assert len(scores.score) == rows
            assert (np.floor(scores.score) == name).all()

        await asyncio.gather(*(client(name) for name in range(300)))
    computed = [name for group in groups for batch in group.batches for name in batch]
    assert {name for name in range(300) if name % 3} <= set(computed)
