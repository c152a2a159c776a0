"""What swaps versions in, and the ranker that serves them."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from functools import partial

import pytest
import redis
from prometheus_client import CollectorRegistry

from service.checkpoints import LocalStore
from service.connections import connect_async
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

    def following(self) -> AbstractAsyncContextManager[None]:
        """As the scorer has it run."""
        return running(self.swapper.run(self.client, self.names))

    @property
    def version(self) -> int | None:
        return self.ranker.loaded and self.ranker.loaded.manifest.version

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, {"lane": "default"} | labels)


@pytest.fixture
def make() -> type[Bench]:
    return Bench


@pytest.fixture
async def bench(settings: Settings, redis_url: str) -> AsyncIterator[Bench]:
    client = connect_async(redis_url, name="test-swap")
    yield Bench(settings, client)
    await client.aclose()


async def poll(condition: Callable[[], bool], within_s: float = 10.0) -> None:
    async with asyncio.timeout(within_s):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def until() -> Callable[..., Awaitable[None]]:
    """Polls, and lets the swapper run meanwhile."""
    return poll
