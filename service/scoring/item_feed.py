"""The way of items from Redis to memory: all of them once, then what changes. Ranking goes on meanwhile."""

import asyncio
import contextlib
import time
from collections.abc import Sequence

import msgspec
import structlog
from redis.exceptions import RedisError

from models.features import Row
from service.connections import LONGEST_BLOCK_MS
from service.errors import EventError
from service.scoring.catalog import Catalog, Item, features_of
from service.scoring.items import ItemStore
from service.streams import order
from service.telemetry import ScorerMetrics

AT_A_TIME = 100  # items written without a pause: they take less than a millisecond
TURNS = 4  # of everybody else between: so many, about, a request needs
PAUSE_S = 0.5  # between attempts while Redis is away

_log = structlog.get_logger()


class ItemFeed:
    """The one task that writes to an item store. It works in small steps, between which requests are ranked."""

    def __init__(self, catalog: Catalog, metrics: ScorerMetrics) -> None:
        self._catalog, self._metrics = catalog, metrics
        self._store: ItemStore | None = None
        self._begun = asyncio.Event()
        self._advanced = asyncio.Event()  # replaced by a new one whenever it is set
        self._position: str | None = None  # of the last change in the store; None: all items must be read
        self._reason = "start"  # why they must

    def begin(self, store: ItemStore) -> None:
        """From here on this store is fed. A store that is fed already goes on as it was."""
        if store is not self._store:
            self._store, self._position, self._reason = store, None, "start"
            self._begun.set()

    async def run(self) -> None:
        """Until cancelled."""
        await self._begun.wait()
        up = True
        while True:
            assert self._store is not None  # begun
            try:
                await self._step(self._store)
                up = True
            except RedisError as error:
                if up:
                    _log.warning("items are not followed: Redis does not serve them", error=str(error))
                up = False
                await asyncio.sleep(PAUSE_S)

    async def reached(self, position: str, timeout_s: float) -> None:
        """Returns once the change at `position` is in the store. Not later than that, nor while all items are read."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._position is not None and order(self._position) < order(position):
                    await self._advanced.wait()

    async def _step(self, store: ItemStore) -> None:
        """Raises RedisError: then the next step is the same again."""
        position = await (self._rebuild(store) if self._position is None else self._follow(store, self._position))
        if store is self._store:  # and no other has begun meanwhile
            self._position = position
            self._advanced.set()
            self._advanced = asyncio.Event()

    async def _rebuild(self, store: ItemStore) -> str:
        """The position from which to follow."""
        started = time.perf_counter()
        position = await self._catalog.end()
        store.begin_scan()
        async for items in self._catalog.scan():
            await self._apply(store, items)
        for forgotten in store.forget_unscanned():
            self._metrics.item_updates.labels("deleted").inc(forgotten)
            await asyncio.sleep(0)
        store.complete = True
        took_s = time.perf_counter() - started
        self._metrics.items_rebuild.labels(self._reason).observe(took_s)
        _log.info("items read", items=len(store), reason=self._reason, seconds=round(took_s, 3))
        return position

    async def _follow(self, store: ItemStore, after: str) -> str | None:
        """The position now, None where changes were lost."""
        changes = await self._catalog.changes(after, LONGEST_BLOCK_MS)
        await self._apply(store, changes.items)
        self._metrics.items_lag.set(changes.behind_s)
        if changes.lost:
            _log.warning("changes of items are gone: reading all items", reason=changes.lost, after=after)
            self._reason = changes.lost
            return None
        return changes.position

    async def _apply(self, store: ItemStore, items: Sequence[Item]) -> None:
        """Writes items to the store, and lets others have their turn between."""
        decoder = msgspec.json.Decoder(store.encoder.rows.item)
        for start in range(0, len(items), AT_A_TIME):
            self._write(store, items[start : start + AT_A_TIME], decoder)
            for _ in range(TURNS):
                await asyncio.sleep(0)

    def _write(self, store: ItemStore, items: Sequence[Item], decoder: "msgspec.json.Decoder[Row]") -> None:
        features: dict[str, Row | None] = {}
        for item_id, entry in items:
            try:
                features[item_id.decode()] = self._read(entry, decoder)
            except UnicodeDecodeError:
                self._metrics.item_updates.labels("unreadable").inc()
        for outcome, count in store.update(features).items():
            self._metrics.item_updates.labels(outcome).inc(count)
        self._metrics.items.set(len(store))

    def _read(self, entry: bytes | None, decoder: "msgspec.json.Decoder[Row]") -> Row | None:
        """None, too, of what was not written by the scorer: such an item is unknown."""
        if entry is None:
            return None
        try:
            return decoder.decode(features_of(entry))
        except msgspec.ValidationError:
            self._metrics.item_updates.labels("misfit").inc()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, EventError):
            self._metrics.item_updates.labels("unreadable").inc()
        return None
