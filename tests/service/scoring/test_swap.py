"""The newest version serves, soon; a bad one never does, and does no harm."""

import asyncio
import os
import resource
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
import redis
from prometheus_client import CollectorRegistry

from service import checkpoints, events
from service.appends import append_batch
from service.checkpoints import LocalStore, Manifest, StoreError
from service.connections import connect_async
from service.events import Announcement
from service.scoring.catalog import Catalog
from service.scoring.experiments import Everyone
from service.scoring.item_feed import ItemFeed
from service.scoring.loading import load
from service.scoring.outbox import Outbox
from service.scoring.ranker import Ranker
from service.scoring.ranking import Loaded
from service.scoring.swap import Swapper
from service.scoring.tasks import running
from service.settings import Settings
from service.streams import StreamNames
from service.telemetry import ScorerMetrics

Publish = Callable[..., Manifest]


class Bench:
    """A swapper, the ranker it feeds, and what it counts."""

    def __init__(
        self,
        settings: Settings,
        client: redis.asyncio.Redis,
        *,
        poll_s: float = 0.02,
        store: LocalStore | None = None,
    ) -> None:
        self.metrics = ScorerMetrics(CollectorRegistry())
        self.names = StreamNames(settings.redis_prefix, 1)
        self.client = client
        outbox = Outbox(client, self.names, capacity=1, max_bytes=1, maxlen=1, metrics=self.metrics)
        self.ranker = Ranker(
            lane="default",
            traffic=Everyone("greedy"),
            max_candidates=10,
            outbox=outbox,
            metrics=self.metrics,
        )
        self.loads = 0
        self.store = store or LocalStore(settings.checkpoints)
        self.swapper = Swapper(
            store=self.store,
            load=partial(self._load, settings),
            ranker=self.ranker,
            items=ItemFeed(Catalog(client, self.names, max_items=10, maxlen=10), self.metrics),
            poll_s=poll_s,
            metrics=self.metrics,
        )

    def _load(self, settings: Settings, version: int, previous: Loaded | None) -> Loaded:
        self.loads += 1
        self.nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        return load(
            self.store,
            version,
            kind="onnx",
            threads=1,
            lane="default",
            strategies=[],
            max_items=10,
            previous=previous,
        )

    @property
    def version(self) -> int | None:
        return self.ranker.loaded and self.ranker.loaded.manifest.version

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"lane": "default"} | labels)


@pytest.fixture
async def bench(settings: Settings, redis_url: str) -> AsyncIterator[Bench]:
    client = connect_async(redis_url, name="test-swap")
    yield Bench(settings, client)
    await client.aclose()


def swapping(bench: Bench) -> AbstractAsyncContextManager[None]:
    return running(bench.swapper.run(bench.client, bench.names))


async def until(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


def spoil(parts: dict[str, object]) -> None:
    parts["graphs"] = dict.fromkeys(parts["graphs"], b"not a graph")


async def test_versions_are_followed_as_they_come(settings: Settings, publish: Publish, bench: Bench) -> None:
    async with swapping(bench):
        await asyncio.to_thread(publish, settings.checkpoints, 0)
        await until(lambda: bench.version == 0)
        await asyncio.to_thread(publish, settings.checkpoints, 250)
        await until(lambda: bench.version == 250)
    assert bench.value("agerank_swaps_total", result="swapped") == 2
    assert bench.value("agerank_model_version") == 250
    assert bench.value("agerank_model_data_timestamp_seconds") == 1_700_000_000
    assert bench.value("agerank_lambda", strategy="age_ts") == 10.0
    assert bench.value("agerank_swap_seconds_count", kind="full") == 2


async def test_nothing_is_loaded_twice(settings: Settings, publish: Publish, bench: Bench) -> None:
    publish(settings.checkpoints)
    for _ in range(3):
        await bench.swapper.check()
    assert bench.loads == 1


@pytest.mark.skipif(sys.platform != "linux", reason="priorities are not a thread's own")
async def test_loading_gives_way_to_requests(settings: Settings, publish: Publish, bench: Bench) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    publish(settings.checkpoints)
    await bench.swapper.check()
    assert bench.nice > ours
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == ours


async def test_a_rollback_is_a_version_like_any_other(settings: Settings, publish: Publish, bench: Bench) -> None:
    first = publish(settings.checkpoints, 1)
    publish(settings.checkpoints, 2)
    await bench.swapper.check()
    checkpoints.set_current(LocalStore(settings.checkpoints), first)
    await bench.swapper.check()
    assert bench.version == 1


async def test_a_bad_version_is_refused_once_and_the_old_one_serves_on(
    settings: Settings, publish: Publish, bench: Bench
) -> None:
    publish(settings.checkpoints, 1)
    await bench.swapper.check()
    publish(settings.checkpoints, 2, change=spoil)
    for _ in range(3):
        await bench.swapper.check()
    assert (bench.version, bench.loads) == (1, 2)
    assert bench.value("agerank_swaps_total", result="refused") == 1
    publish(settings.checkpoints, 3)
    await bench.swapper.check()
    assert bench.version == 3


async def test_a_refused_version_that_is_written_anew_gets_its_chance(
    settings: Settings, publish: Publish, bench: Bench
) -> None:
    publish(settings.checkpoints, 0, change=spoil)
    await bench.swapper.check()
    assert bench.version is None
    assert "unreadable_graph" in bench.ranker.reason
    publish(settings.checkpoints, 0)
    await bench.swapper.check()
    assert bench.version == 0


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"version": 9}', b'{"version": "\xff"}'])
async def test_whatever_current_json_says_the_task_lives(
    settings: Settings, publish: Publish, bench: Bench, content: bytes
) -> None:
    settings.checkpoints.mkdir(parents=True)
    (settings.checkpoints / "current.json").write_bytes(content)
    await bench.swapper.check()
    assert bench.value("agerank_swaps_total", result="refused") == 1
    publish(settings.checkpoints)
    await bench.swapper.check()
    assert bench.version == 0


async def test_a_version_without_its_golden_request_is_refused(
    settings: Settings, publish: Publish, bench: Bench
) -> None:
    publish(settings.checkpoints, change=lambda parts: parts["golden"].clear())
    await bench.swapper.check()
    assert bench.version is None
    assert "unusable" in bench.ranker.reason


async def test_click_to_serving_counts_the_clicks_that_a_swap_brought(
    settings: Settings, publish: Publish, bench: Bench
) -> None:
    clicked_ms = int(time.time() * 1000) - 4_000
    publish(settings.checkpoints, 1, click_times_ms=[clicked_ms])
    await bench.swapper.check()
    assert bench.value("agerank_click_to_serving_seconds_count") is None  # at the start it would be a lie
    publish(settings.checkpoints, 2, click_times_ms=[clicked_ms, clicked_ms])
    await bench.swapper.check()
    assert bench.value("agerank_click_to_serving_seconds_count") == 2
    assert bench.value("agerank_click_to_serving_seconds_sum") == pytest.approx(8.0, abs=2.0)
    for version in (2, 1):  # named anew, and a step back
        store = LocalStore(settings.checkpoints)
        checkpoints.set_current(store, checkpoints.load_manifest(store, version))
        await bench.swapper.check()
        assert bench.version == version
    assert bench.value("agerank_click_to_serving_seconds_count") == 2


async def test_an_announcement_wakes_it_before_the_poll(
    settings: Settings, publish: Publish, client: redis.Redis, redis_url: str
) -> None:
    connection = connect_async(redis_url, name="test-swap")
    bench = Bench(settings, connection, poll_s=60.0)
    async with swapping(bench):
        await until(lambda: any(one["cmd"] == "xread" for one in client.client_list()))
        await asyncio.to_thread(publish, settings.checkpoints)
        announcement = events.encode(Announcement(lane="default", version=0))
        started = time.monotonic()
        append_batch(client, [(bench.names.models, announcement, None)])
        await until(lambda: bench.version == 0)
        assert time.monotonic() - started < 1.5  # a blocking read ends after 2 s by itself
    await connection.aclose()


async def test_without_redis_it_polls(settings: Settings, publish: Publish) -> None:
    nobody = connect_async("redis://127.0.0.1:1/0", name="test-swap")
    bench = Bench(settings, nobody)
    async with swapping(bench):
        await asyncio.to_thread(publish, settings.checkpoints, 4)
        await until(lambda: bench.version == 4)
    await nobody.aclose()


class Remote(LocalStore):
    """A place that cannot always be reached."""

    down = False

    def stamp(self, name: str) -> str | None:
        if self.down:
            raise StoreError("no route to host")
        return super().stamp(name)

    def read(self, folder: str, name: str) -> bytes:
        if name == "golden.safetensors" and (self.root / "lost").exists():
            raise StoreError("connection reset")
        return super().read(folder, name)


async def test_too_many_open_files_are_no_fault_of_a_version(
    settings: Settings, publish: Publish, bench: Bench
) -> None:
    publish(settings.checkpoints, 1)
    await bench.swapper.check()
    publish(settings.checkpoints, 2)
    free = os.dup(0)
    os.close(free)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    for few in (free, free + 1):  # no file can be opened; one, and no folder within
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, limits[1]))
        try:
            await bench.swapper.check()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert bench.value("agerank_swaps_total", result="refused") is None
    await bench.swapper.check()
    assert bench.version == 2


async def test_an_outage_of_the_checkpoints_is_no_fault_of_a_version(
    settings: Settings, publish: Publish, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    connection, store = connect_async(redis_url, name="test-swap"), Remote(settings.checkpoints)
    bench = Bench(settings, connection, store=store)
    publish(settings.checkpoints, 1)
    await bench.swapper.check()
    store.down = True
    publish(settings.checkpoints, 2)
    for _ in range(3):
        await bench.swapper.check()
    store.down = False
    (store.root / "lost").touch()  # it breaks off in the middle of a version
    for _ in range(3):
        await bench.swapper.check()
    assert bench.version == 1
    assert bench.value("agerank_swaps_total", result="refused") is None
    assert capsys.readouterr().out.count("cannot be reached") == 1
    (store.root / "lost").unlink()
    await bench.swapper.check()
    assert bench.version == 2
    await connection.aclose()
