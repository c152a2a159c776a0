"""The item store's routes without HTTP: items are checked here, kept in Redis, and come to every scorer from there."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from msgspec import Raw
from redis.exceptions import RedisError

from models.features import FeatureError
from service.connections import refusal, unavailable
from service.errors import EventError, Full, Invalid, NotFound
from service.scoring import item_schemas, schemas
from service.scoring.catalog import Catalog, features_of
from service.scoring.item_feed import ItemFeed
from service.scoring.item_schemas import Item, ItemResult, ItemsResponse, StoredItem, rejected
from service.scoring.items import ItemStore
from service.telemetry import ScorerMetrics

AT_A_TIME = 200  # items checked without a pause

LeftS = Callable[[], float]  # how long the caller still waits

_FULL = "the store holds max_items already: delete some, or raise the limit on all scorers"


class ItemEdits:
    """Puts, reads and deletes items.

    What was put or deleted is answered once Redis has it, and as a rule this scorer too.

    Args:
        catalog: where they are.
        feed: brings them from there to this scorer.
        store: tells the store, whose feature spec items must fit; raises Unavailable not_ready.
        max_batch: items of one batch.
        timeout_s: how long Redis may take, for who does not say how long he waits by `left_s`.
    """

    def __init__(
        self,
        catalog: Catalog,
        feed: ItemFeed,
        *,
        store: Callable[[], ItemStore],
        max_batch: int,
        timeout_s: float,
        metrics: ScorerMetrics,
    ) -> None:
        self._catalog, self._feed, self._store = catalog, feed, store
        self._max_batch, self._timeout_s, self._metrics = max_batch, timeout_s, metrics

    async def put(self, item_id: str, body: bytes, *, left_s: LeftS | None = None) -> bytes:
        """Raises ServiceError: of a wrong id, body or feature, item_too_large, items_full, not_ready, log_*."""
        store, item_id = self._store(), item_schemas.check_id(item_id)
        item = Item(id=item_id, features=item_schemas.decode_features(body))
        try:
            store.check([item.id], [item.features])
        except FeatureError as error:
            raise Invalid(error.code, error.message, path=_path(error)) from None
        (result,) = await self._write([item], left_s)
        if result.code == "items_full":
            raise Full("items_full", _FULL)
        return schemas.encode(result)

    async def put_batch(self, body: bytes, *, left_s: LeftS | None = None) -> bytes:
        """A result for each item. Raises ServiceError: of a wrong batch, not_ready, log_unavailable, log_full."""
        store = self._store()
        read = item_schemas.decode_items(body, max_items=self._max_batch)
        for start in range(0, len(read), AT_A_TIME):
            read[start : start + AT_A_TIME] = _checked(store, read[start : start + AT_A_TIME])
            await asyncio.sleep(0)
        written = iter(await self._write([one for one in read if isinstance(one, Item)], left_s))
        results = [next(written) if isinstance(one, Item) else self._counted(one) for one in read]
        return schemas.encode(ItemsResponse(results=results))

    async def get(self, item_id: str) -> bytes:
        """Raises NotFound, Invalid, Unavailable log_unavailable, log_full."""
        item_schemas.check_id(item_id)
        async with self._redis(self._timeout_s):
            entry = await self._catalog.get(item_id)
        features = None if entry is None else _readable(entry)
        if features is None:
            raise _unknown(item_id)
        return schemas.encode(StoredItem(id=item_id, features=features))

    async def delete(self, item_id: str) -> bytes:
        """Raises NotFound, Invalid, Unavailable log_unavailable, log_full."""
        item_schemas.check_id(item_id)
        async with self._redis(self._timeout_s):
            position = await self._catalog.delete(item_id)
        if position is None:
            raise _unknown(item_id)
        await self._feed.reached(position, self._timeout_s)
        return schemas.encode(self._counted(ItemResult(id=item_id, result="deleted")))

    async def _write(self, items: Sequence[Item], left_s: LeftS | None) -> list[ItemResult]:
        if not items:
            return []
        left_s = left_s or (lambda: self._timeout_s)
        async with self._redis(left_s()):
            puts = await self._catalog.put([(item.id, schemas.encode(item.features)) for item in items])
        if puts.position is not None:
            await self._feed.reached(puts.position, left_s())
        results = []
        for item, put in zip(items, puts.results, strict=True):
            full = rejected(item.id, "items_full", _FULL)
            results.append(self._counted(full if put == "full" else ItemResult(id=item.id, result=put)))
        return results

    @asynccontextmanager
    async def _redis(self, timeout_s: float) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(timeout_s):
                yield
        except (RedisError, TimeoutError) as error:
            self._metrics.log_errors.labels(refusal(error)).inc()
            raise unavailable(error) from None

    def _counted(self, result: ItemResult) -> ItemResult:
        self._metrics.item_writes.labels("full" if result.code == "items_full" else result.result).inc()
        return result


def _checked(store: ItemStore, read: Sequence[Item | ItemResult]) -> list[Item | ItemResult]:
    """The same, with those rejected whose features do not fit."""
    items = [one for one in read if isinstance(one, Item)]
    if not items:
        return list(read)
    try:
        store.check([item.id for item in items], [item.features for item in items])
        return list(read)
    except FeatureError as error:
        if len(read) == 1:
            return [rejected(items[0].id, error.code, error.message, path=_path(error))]
    return [result for one in read for result in _checked(store, [one])]


def _readable(entry: bytes) -> Raw | None:
    """The features in an entry, None where no scorer of this release wrote it."""
    try:
        features = features_of(entry)
        msgspec.json.decode(features, type=dict[str, Any])
    except (EventError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return Raw(features)


def _path(error: FeatureError) -> str:
    """Of a feature, from its item on."""
    return error.path.partition(".")[2]


def _unknown(item_id: str) -> NotFound:
    return NotFound("not_found", f"there is no item {item_id!r}")
