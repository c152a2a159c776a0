"""The newest version serves, soon; a bad one never does, and does no harm."""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis

from service import checkpoints, events
from service.appends import append_batch
from service.checkpoints import LocalStore, Manifest
from service.connections import connect_async
from service.events import Announcement
from service.settings import Settings

Publish = Callable[..., Manifest]
Make = Callable[..., Any]
Until = Callable[..., Awaitable[None]]


def spoil(parts: dict[str, object]) -> None:
    parts["graphs"] = dict.fromkeys(parts["graphs"], b"not a graph")


async def test_versions_are_followed_as_they_come(settings: Settings, publish: Publish, bench, until: Until) -> None:
    async with bench.following():
        await asyncio.to_thread(publish, settings.checkpoints, 0)
        await until(lambda: bench.version == 0)
        await asyncio.to_thread(publish, settings.checkpoints, 250)
        await until(lambda: bench.version == 250)
    assert bench.value("agerank_swaps_total", result="swapped") == 2
    assert bench.value("agerank_model_version") == 250
    assert bench.value("agerank_model_data_timestamp_seconds") == 1_700_000_000
    assert bench.value("agerank_lambda", strategy="age_ts") == 10.0
    assert bench.value("agerank_swap_seconds_count", kind="full") == 2


async def test_nothing_is_loaded_twice(settings: Settings, publish: Publish, bench) -> None:
    publish(settings.checkpoints)
    for _ in range(3):
        await bench.swapper.check()
    assert bench.loads == 1


@pytest.mark.skipif(sys.platform != "linux", reason="priorities are not a thread's own")
async def test_loading_gives_way_to_requests(settings: Settings, publish: Publish, bench) -> None:
    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    publish(settings.checkpoints)
    await bench.swapper.check()
    assert bench.nice > ours
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == ours


async def test_a_rollback_is_a_version_like_any_other(settings: Settings, publish: Publish, bench) -> None:
    first = publish(settings.checkpoints, 1)
    publish(settings.checkpoints, 2)
    await bench.swapper.check()
    checkpoints.set_current(LocalStore(settings.checkpoints), first)
    await bench.swapper.check()
    assert bench.version == 1


async def test_a_bad_version_is_refused_once_and_the_old_one_serves_on(
    settings: Settings, publish: Publish, bench
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
    settings: Settings, publish: Publish, bench
) -> None:
    publish(settings.checkpoints, 0, change=spoil)
    await bench.swapper.check()
    assert bench.version is None
    assert "unreadable_graph" in bench.ranker.reason
    publish(settings.checkpoints, 0)
    await bench.swapper.check()
    assert bench.version == 0


async def test_a_version_without_its_golden_request_is_refused(settings: Settings, publish: Publish, bench) -> None:
    publish(settings.checkpoints, change=lambda parts: parts["golden"].clear())
    await bench.swapper.check()
    assert bench.version is None
    assert "unusable" in bench.ranker.reason


async def test_click_to_serving_counts_the_clicks_that_a_swap_brought(
    settings: Settings, publish: Publish, bench
) -> None:
    clicked_ms = int(time.time() * 1000) - 4_000
    publish(settings.checkpoints, 1, click_times_ms=[clicked_ms])
    await bench.swapper.check()
    assert bench.value("agerank_click_to_serving_seconds_count") is None  # at the start it would be a lie
    publish(settings.checkpoints, 2, click_times_ms=[clicked_ms, clicked_ms])
    await bench.swapper.check()
    assert bench.value("agerank_click_to_serving_seconds_count") == 2
    since_s = time.time() - clicked_ms / 1000
    assert 2 * 4.0 <= bench.value("agerank_click_to_serving_seconds_sum") <= 2 * since_s
    for version in (2, 1):  # named anew, and a step back
        store = LocalStore(settings.checkpoints)
        checkpoints.set_current(store, checkpoints.load_manifest(store, version))
        await bench.swapper.check()
        assert bench.version == version
    assert bench.value("agerank_click_to_serving_seconds_count") == 2


async def test_an_announcement_wakes_it_before_the_poll(
    settings: Settings, publish: Publish, client: redis.Redis, redis_url: str, make: Make, until: Until
) -> None:
    connection = connect_async(redis_url, name="test-swap")
    bench = make(settings, connection, poll_s=60.0)
    async with bench.following():
        await until(lambda: any(one["cmd"] == "xread" for one in client.client_list()))
        await asyncio.to_thread(publish, settings.checkpoints)
        announcement = events.encode(Announcement(lane="default", version=0))
        started = time.monotonic()
        append_batch(client, [(bench.names.models, announcement, None)])
        await until(lambda: bench.version == 0)
        assert time.monotonic() - started < 1.5  # a blocking read ends after 2 s by itself
    await connection.aclose()
