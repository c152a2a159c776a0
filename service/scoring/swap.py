"""The next version, as soon as there is one: loaded beside the one that serves, verified, and put in its place."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import redis.asyncio
import structlog
from redis.exceptions import RedisError

from service import checkpoints
from service.appends import next_announcement
from service.checkpoints import Store, passes
from service.errors import CheckpointError
from service.scoring.item_feed import ItemFeed
from service.scoring.ranker import Ranker
from service.scoring.ranking import Loaded
from service.scoring.tasks import step_aside
from service.streams import StreamNames
from service.telemetry import ScorerMetrics

_log = structlog.get_logger()


class Swapper:
    """Keeps a ranker at the version that current.json names.

    An announcement on the stream only wakes it early: a lost one costs `poll_s` and nothing else. A version that was
    refused is not tried again until current.json is written anew.

    Args:
        store: of the lane's checkpoints.
        load: makes a verified version from its number and the one that serves; raises CheckpointError.
        ranker: gets it.
        items: fills its item store.
        poll_s: how often current.json is looked at.
    """

    def __init__(
        self,
        *,
        store: Store,
        load: Callable[[int, Loaded | None], Loaded],
        ranker: Ranker,
        items: ItemFeed,
        poll_s: float,
        metrics: ScorerMetrics,
    ) -> None:
        self._store, self._load, self._ranker, self._items = store, load, ranker, items
        self._poll_s, self._metrics = poll_s, metrics
        self._loader = ThreadPoolExecutor(1, "swap", initializer=step_aside)
        self._seen: str | None = None  # stamp of the current.json that was dealt with last
        self._reachable = True

    async def run(self, client: redis.asyncio.Redis, names: StreamNames) -> None:
        """Until cancelled."""
        heard = "$"
        while True:
            await self.check()
            try:
                announced = await next_announcement(client, names, heard, max(1, round(self._poll_s * 1000)))
                heard = announced.position if announced else heard
            except RedisError:
                await asyncio.sleep(self._poll_s)

    async def check(self) -> None:
        """Swaps if current.json was written since the last time."""
        loop = asyncio.get_running_loop()
        stamp = await loop.run_in_executor(self._loader, self._stamp)
        if stamp is None or stamp == self._seen:
            return
        before, self._seen = self._seen, stamp
        started = time.perf_counter()
        try:
            loaded = await loop.run_in_executor(self._loader, self._next)
        except CheckpointError as error:
            self._refuse(error)
        except OSError as error:  # no fault of the version: it is read again with the next look
            self._seen = before
            self._report(error)
        else:
            self._reachable = True
            seconds = self._metrics.swap_seconds.labels(self._ranker.lane, loaded.manifest.kind)
            seconds.observe(time.perf_counter() - started)
            self._serve(loaded)

    def _stamp(self) -> str | None:
        """Of current.json; None where there is none, or where nobody can tell."""
        try:
            return self._store.stamp(checkpoints.CURRENT)
        except OSError as error:
            self._report(error)
            return None

    def _report(self, error: OSError) -> None:
        """Once an outage, which ends with the next version."""
        if self._reachable:
            _log.error("the checkpoints cannot be reached: serving on with what there is", error=str(error))
        self._reachable = False

    def _next(self) -> Loaded:
        try:
            version = checkpoints.current(self._store)
            if version is None:
                raise CheckpointError("missing_version", "current.json is gone")
            return self._load(version, self._ranker.loaded)
        except CheckpointError:
            raise
        except Exception as error:  # what another process wrote must not end this task, whatever is wrong with it
            if isinstance(error, OSError) and passes(error):
                raise
            _log.exception("loading a version failed")
            raise CheckpointError("unusable", f"{type(error).__name__}: {error}") from error

    def _refuse(self, error: CheckpointError) -> None:
        _log.error("version refused", code=error.code, detail=error.detail)
        self._metrics.swaps.labels(self._ranker.lane, "refused").inc()
        self._ranker.reason = f"the current version was refused: {error}"

    def _serve(self, loaded: Loaded) -> None:
        before, self._ranker.loaded = self._ranker.loaded, loaded
        self._items.begin(loaded.items)
        manifest, metrics, lane, now_s = loaded.manifest, self._metrics, self._ranker.lane, time.time()
        _log.info("version swapped in", version=manifest.version, before=before and before.manifest.version)
        metrics.swaps.labels(lane, "swapped").inc()
        metrics.model.labels(lane).info({"version": str(manifest.version), "spec_hash": manifest.spec_hash})
        metrics.model_version.labels(lane).set(manifest.version)
        metrics.model_data_timestamp.labels(lane).set(manifest.data_timestamp_ms / 1e3)
        for name, strategy in manifest.strategies.items():
            metrics.lambda_.labels(lane, name).set(strategy.lambda_)
        # Neither a scorer that has just started nor one that goes back serves these clicks for the first time.
        if before is not None and before.manifest.version < manifest.version:
            metrics.event_to_serving.labels(lane).observe(now_s - manifest.data_timestamp_ms / 1e3)
            metrics.click_to_serving.observe(lane, now_s - np.array(loaded.content.click_times_ms) / 1e3)
