"""What is in Redis comes to memory, whatever happens on the way; ranking never waits for it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis
import redis.asyncio
from prometheus_client import CollectorRegistry

from models.features import Encoder
from models.spec import FeatureSpec
from service.connections import connect_async
from service.scoring.catalog import Catalog
from service.scoring.item_feed import ItemFeed
from service.scoring.items import ItemStore
from service.scoring.tasks import running
from service.streams import StreamNames
from service.telemetry import ScorerMetrics
from service.valkey import EmbeddedServer

SPEC = FeatureSpec.from_toml("""
[[fields]]
name = "topic"
side = "item"
kind = "categorical"
buckets = 1000000
""")


class Replica:
    """A store, and the feed that fills it, as in one scorer."""

    def __init__(self, client: redis.asyncio.Redis, names: StreamNames, *, max_items: int = 5_000) -> None:
        self.metrics = ScorerMetrics(CollectorRegistry())
        self.catalog = Catalog(client, names, max_items=5_000, maxlen=100_000)
        self.store = ItemStore(Encoder(SPEC), max_items=max_items)
        self.feed = ItemFeed(self.catalog, self.metrics)
        self.feed.begin(self.store)

    async def put(self, **topics: object) -> None:
        """Item -> topic."""
        await self.catalog.put([(one, f'{{"topic": "{topic}"}}'.encode()) for one, topic in topics.items()])

    def has(self, **topics: object) -> bool:
        """Just these."""
        encoded, _ = Encoder(SPEC).items(list(topics), [{"topic": str(topic)} for topic in topics.values()])
        found = self.store.find(list(topics))
        if found is None:
            return not topics
        return len(self.store) == len(topics) and bool((found.index == encoded).all() and found.known.all())

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def rebuilds(self, reason: str) -> float:
        return self.value("agerank_items_rebuild_seconds_count", reason=reason)


Start = Callable[..., "asyncio.Future[Replica]"]


@pytest.fixture
async def start(redis_url: str, names: StreamNames) -> AsyncIterator[Callable[..., object]]:
    async with AsyncExitStack() as stack:

        async def started(**options: int) -> Replica:
            client = await stack.enter_async_context(connect_async(redis_url, name="test-feed"))
            replica = Replica(client, names, **options)
            await stack.enter_async_context(running(replica.feed.run()))
            await until(lambda: replica.store.complete)
            return replica

        yield started


async def until(condition: Callable[[], bool], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


async def test_every_replica_has_what_one_of_them_put(start: Start) -> None:
    first, second = await start(), await start()
    await first.put(a=1, b=2)
    await second.put(b=3, c=4)
    await first.catalog.delete("a")
    for replica in (first, second):
        await until(lambda replica=replica: replica.has(b=3, c=4))
        assert replica.rebuilds("start") == 1
        assert replica.rebuilds("trimmed") == 0
        assert replica.value("agerank_items") == 2
        await until(lambda replica=replica: replica.value("agerank_items_lag_seconds") == 0)
    deleted = first.value("agerank_item_updates_total", result="deleted")
    await second.catalog.delete("c")
    await until(lambda: first.has(b=3))
    assert first.value("agerank_item_updates_total", result="deleted") == deleted + 1


async def test_a_new_replica_reads_all_there_is(start: Start) -> None:
    everything = {f"i-{number}": number for number in range(1_234)}
    await (await start()).put(**everything)
    assert (await start()).has(**everything)


async def test_what_is_put_while_all_is_read_is_not_lost(start: Start) -> None:
    writer = await start()
    topics = {f"i-{number}": number for number in range(3_000)}
    await writer.put(**topics)
    reading = asyncio.ensure_future(start())
    while not reading.done():
        chosen = f"i-{len(topics)}"
        topics[chosen] = topics["i-7"] = len(topics)
        await writer.put(**{chosen: topics[chosen], "i-7": topics["i-7"]})
        await writer.catalog.delete("i-0")
        topics.pop("i-0", None)
    replica = await reading
    await until(lambda: replica.has(**topics))


async def test_a_write_can_be_waited_for(start: Start) -> None:
    replica = await start()
    for topic in range(20):
        puts = await replica.catalog.put([("a", f'{{"topic": {topic}}}'.encode())])
        assert puts.position
        await replica.feed.reached(puts.position, 20.0)
        assert replica.has(a=topic)
    await replica.feed.reached("99999999999999-0", 0.01)  # never: then the time is up


async def test_who_missed_changes_reads_everything(
    client: redis.Redis, redis_url: str, names: StreamNames, start: Start
) -> None:
    """A replica that stood still while the stream was trimmed, and while items came, changed and went."""
    writer = await start()
    async with connect_async(redis_url, name="test-feed") as connection:
        slow = Replica(connection, names)
        await writer.put(a=1, b=1, c=1)
        async with running(slow.feed.run()):
            await until(lambda: slow.store.complete and slow.has(a=1, b=1, c=1))
        await writer.put(b=2, d=2)
        await writer.catalog.delete("a")
        client.xtrim(names.item_changes, maxlen=1, approximate=False)
        async with running(slow.feed.run()):
            await until(lambda: slow.has(b=2, c=1, d=2))
            await until(lambda: slow.rebuilds("trimmed") == 1)
            assert slow.store.complete
            await writer.put(e=3)
            await until(lambda: slow.has(b=2, c=1, d=2, e=3))
        client.delete(names.items, names.item_changes)  # and who finds nothing has nothing
        async with running(slow.feed.run()):
            await until(lambda: slow.rebuilds("trimmed") == 2)
        assert slow.has()


async def test_a_server_that_went_back_in_time_is_believed(
    client: redis.Redis, names: StreamNames, start: Start
) -> None:
    """As after a failover: what the other server did not hear of is gone for everybody."""
    replica = await start()
    await replica.put(a=1)
    before = {key: client.dump(key) for key in (names.items, names.item_changes)}
    await replica.put(a=2, b=2)
    await until(lambda: replica.has(a=2, b=2))
    with client.pipeline(transaction=True) as pipe:
        for key, value in before.items():
            pipe.restore(key, 0, value, replace=True)
        pipe.execute()
    await until(lambda: replica.has(a=1))
    await replica.put(c=3)
    await until(lambda: replica.has(a=1, c=3))
    with client.pipeline(transaction=True) as pipe:  # and somebody writes before anybody looks
        for key, value in before.items():
            pipe.restore(key, 0, value, replace=True)
        pipe.hset(names.items, "d", b'\x01{"topic": "4"}')
        pipe.xadd(names.item_changes, {"e": b"\x01d"})
        pipe.execute()
    await until(lambda: replica.has(a=1, d=4))
    assert replica.rebuilds("restored") == 2


async def test_what_does_not_fit_is_unknown_and_counted(client: redis.Redis, names: StreamNames, start: Start) -> None:
    replica = await start()
    await replica.put(a=1, b=1, c=1, d=1)
    wrong = {"a": b'{"colour": 1}', "b": b'{"topic": [1]}', "c": b"{", "new": b'{"topic": 1.5}'}
    await replica.catalog.put(list(wrong.items()))
    client.hset(names.items, "of another release", b"\x02{}")
    client.hset(names.items, b"\xff", b"\x01{}")
    for one in (b"of another release", b"\xff"):
        client.xadd(names.item_changes, {b"e": b"\x01" + one})
    await replica.put(e=2)
    await until(lambda: replica.has(d=1, e=2))
    other = await start()
    assert other.has(d=1, e=2)
    assert other.value("agerank_item_updates_total", result="misfit") == 3
    assert other.value("agerank_item_updates_total", result="unreadable") == 3


async def test_a_replica_with_less_room_knows_fewer(start: Start) -> None:
    await (await start()).put(a=1, b=1, c=1)
    small = await start(max_items=2)
    assert len(small.store) == 2
    assert small.value("agerank_item_updates_total", result="full") == 1


async def test_another_store_is_filled_anew(start: Start) -> None:
    replica = await start()
    await replica.put(a=1)
    await until(lambda: replica.has(a=1))
    replica.feed.begin(replica.store)
    replica.store = ItemStore(Encoder(SPEC), max_items=10)
    replica.feed.begin(replica.store)
    await replica.put(b=2)
    await until(lambda: replica.store.complete and replica.has(a=1, b=2))
    assert replica.rebuilds("start") == 2


async def test_while_redis_is_away_the_items_stay(tmp_path: Path, names: StreamNames) -> None:
    """At the start, too: then the store waits for it."""
    with EmbeddedServer(tmp_path) as server:
        server.stop()
        async with connect_async(server.url, name="test-feed") as connection:
            replica = Replica(connection, names)
            async with running(replica.feed.run()):
                await asyncio.sleep(0.1)
                assert not replica.store.complete
                server.start()
                await until(lambda: replica.store.complete)
                await replica.put(a=1)
                await until(lambda: replica.has(a=1))
                server.stop()
                await asyncio.sleep(0.1)
                assert replica.has(a=1)
                server.start()
                await until(lambda: bool(server.started_here))
                await replica.put(b=2)
                await until(lambda: replica.has(a=1, b=2))
    assert replica.rebuilds("trimmed") == 0
