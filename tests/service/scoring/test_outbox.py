"""Served records reach the log: in order, after any outage that the queue survives, and counted where they do not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from prometheus_client import CollectorRegistry

from service import events
from service.connections import connect_async
from service.events import Served
from service.scoring.outbox import BATCH, Outbox
from service.scoring.tasks import running
from service.streams import StreamNames
from service.telemetry import ScorerMetrics
from service.valkey import EmbeddedServer


def record(number: int) -> Served:
    return Served(
        request_id=f"r{number}", time_ms=0, lane="default", strategy="greedy", version=1, lambda_=0.0, seed=number,
        spec_hash="", bucket=None, context_index=b"", context_weight=b"", item_ids=["a"], item_index=b"",
        item_weight=b"", p_click=[0.5], score=[0.5], explored=[False], impressions=[0], propensity=None,
    )  # fmt: skip


@asynccontextmanager
async def outbox(
    url: str, names: StreamNames, *, capacity: int = 1_000, max_bytes: int = 10**9, idle: bool = False
) -> AsyncIterator[Outbox]:
    client = connect_async(url, name="test-outbox")
    box = Outbox(
        client, names, capacity=capacity, max_bytes=max_bytes, maxlen=10_000, metrics=ScorerMetrics(CollectorRegistry())
    )
    async with AsyncExitStack() as stack:
        stack.push_async_callback(client.aclose)
        if not idle:
            await stack.enter_async_context(running(box.run()))
        yield box


def written(client: redis.Redis, names: StreamNames) -> list[Served]:
    return [events.decode_served(fields[b"e"]) for stream in names.inputs for _, fields in client.xrange(stream)]


def count(box: Outbox, result: str) -> float | None:
    return box._metrics.registry.get_sample_value("agerank_served_records_total", {"result": result})


async def until(condition: Callable[[], bool | Awaitable[bool]], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.01)


async def test_every_record_is_written_once_in_order(client: redis.Redis, redis_url: str, names: StreamNames) -> None:
    total = 2 * BATCH + 10
    async with outbox(redis_url, names) as box:
        for number in range(total):
            assert box.put(record(number))
        await until(lambda: count(box, "written") == total)
        assert box.available
    found = written(client, names)
    assert sorted(one.seed for one in found) == list(range(total))
    for partition in names.inputs:
        of_one = [one.seed for one in found if names.served(one.request_id) == partition]
        assert of_one == sorted(of_one)


async def test_it_knows_that_redis_is_there_before_anything_is_written(redis_url: str, names: StreamNames) -> None:
    async with outbox(redis_url, names) as box:
        await until(lambda: box.available)
    assert box._metrics.registry.get_sample_value("agerank_log_up") == 1.0


async def test_what_was_put_while_redis_was_gone_is_written_when_it_is_back(names: StreamNames, tmp_path: Path) -> None:
    server = EmbeddedServer(tmp_path).start()
    try:
        async with outbox(server.url, names) as box:
            box.put(record(0))
            await until(lambda: count(box, "written") == 1)
            await asyncio.to_thread(server.stop)
            box.put(record(1))
            await until(lambda: not box.available)
            box.put(record(2))
            assert count(box, "dropped") is None
            await asyncio.to_thread(server.start)
            await until(lambda: count(box, "written") == 3)
            assert box.available
        with redis.Redis.from_url(server.url) as client:
            assert sorted(one.seed for one in written(client, names)) == [0, 1, 2]
    finally:
        server.stop()


async def test_a_full_queue_drops_the_newest(client: redis.Redis, redis_url: str, names: StreamNames) -> None:
    async with outbox(redis_url, names, capacity=3, idle=True) as box:
        assert [box.put(record(number)) for number in range(5)] == [True] * 3 + [False] * 2
        assert count(box, "dropped") == 2
        await box.flush(5.0)
        assert sorted(one.seed for one in written(client, names)) == [0, 1, 2]
        assert box.put(record(5))  # there is room again


async def test_so_does_one_that_is_full_of_bytes(client: redis.Redis, redis_url: str, names: StreamNames) -> None:
    """The last that it takes may go beyond: no record is too large."""
    bound = len(events.encode(record(0))) + 1
    async with outbox(redis_url, names, max_bytes=bound, idle=True) as box:
        assert [box.put(record(number)) for number in range(3)] == [True, True, False]
        await box.flush(5.0)
        assert sorted(one.seed for one in written(client, names)) == [0, 1]
        assert box.put(record(3))


async def test_shutdown_writes_what_is_left(client: redis.Redis, redis_url: str, names: StreamNames) -> None:
    """The task is cancelled at a moment of its own: what it had begun may be written twice, and nothing is lost."""
    async with outbox(redis_url, names, idle=True) as box:
        async with running(box.run()):
            for number in range(3 * BATCH):
                box.put(record(number))
            await until(lambda: box.available)
        await box.flush(5.0)
    assert {one.seed for one in written(client, names)} == set(range(3 * BATCH))


async def test_what_cannot_be_written_in_time_is_counted_as_dropped(names: StreamNames, tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        url = server.url
    async with outbox(url, names, idle=True) as box:
        for number in range(7):
            box.put(record(number))
        await box.flush(0.3)
    assert (count(box, "dropped"), count(box, "written")) == (7, None)


async def test_a_refusal_of_redis_is_an_outage_too(client: redis.Redis, redis_url: str, names: StreamNames) -> None:
    """A key of another type, no memory, a replica: the records wait."""
    for stream in names.inputs:
        client.set(stream, "not a stream")
    async with outbox(redis_url, names) as box:
        await until(lambda: box.available)
        box.put(record(1))
        await until(lambda: not box.available)
        client.delete(*names.inputs)
        await until(lambda: count(box, "written") == 1)


async def test_after_a_failover_the_records_go_where_the_name_leads(failover: Any, names: StreamNames) -> None:
    async with outbox(failover.url, names) as box:
        box.put(record(0))
        await until(lambda: count(box, "written") == 1)
        failover.happens()
        for number in range(1, 4):
            box.put(record(number))
        await until(lambda: count(box, "written") == 4)
        errors = box._metrics.registry.get_sample_value("agerank_log_errors_total", {"reason": "read_only"})
        assert (errors, box.available) == (1, True)
    assert sorted(one.seed for one in written(failover.second, names)) == [1, 2, 3]
