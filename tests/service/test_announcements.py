"""Scorers hear of a version as soon as it is announced."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import redis
import redis.asyncio

from service.appends import append_batch, next_announcement
from service.connections import connect_async
from service.events import Announcement, encode
from service.streams import StreamNames


@pytest.fixture
async def aclient(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with connect_async(redis_url, name="test") as client:
        yield client


async def test_the_newest_announcement_is_the_next(
    client: redis.Redis, aclient: redis.asyncio.Redis, names: StreamNames
) -> None:
    assert await next_announcement(aclient, names, "0-0", 20) is None
    versions = [encode(Announcement(lane="default", version=version)) for version in range(3)]
    positions = append_batch(client, [(names.models, version, None) for version in versions])
    newest = await next_announcement(aclient, names, "0-0", 20)
    assert newest == (names.models, positions[-1], versions[-1])
    assert await next_announcement(aclient, names, newest.position, 20) is None


async def test_who_waits_for_an_announcement_hears_it(
    client: redis.Redis, aclient: redis.asyncio.Redis, names: StreamNames
) -> None:
    waiting = asyncio.create_task(next_announcement(aclient, names, "$", 2_000))
    deadline = time.monotonic() + 10
    while not any("b" in one["flags"] for one in client.client_list()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0)
    append_batch(client, [(names.models, b"news", None)])
    heard = await waiting
    assert heard is not None
    assert heard.payload == b"news"
