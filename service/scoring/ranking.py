"""One request against one version: encode, score, choose. No I/O, no clock, no metrics."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from models.features import Encoder, FeatureError, Features
from models.noise import combine
from models.slate import choose
from models.types import Array, Batch, Scores, Slate
from service.checkpoints import Manifest, ServedStrategy
from service.errors import Internal, Invalid
from service.scoring.content import Content
from service.scoring.decoding import RankDecoder
from service.scoring.engines import Engine, SeededNoise
from service.scoring.items import ItemStore
from service.scoring.schemas import RankRequest, WarningCode

Check = Callable[[], None]  # raises where nobody waits for the answer any more


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A version, ready to rank with. A swap replaces the whole."""

    content: Content
    encoder: Encoder
    decoder: RankDecoder
    engine: Engine
    items: ItemStore  # of all versions whose item fields are these

    @property
    def manifest(self) -> Manifest:
        return self.content.manifest

    def impressions(self, item_hash: Array) -> Array:
        """(B,) uint64 -> (B,) int64, how often each item was shown by the time of the version."""
        shown, count = self.content.items
        if not len(shown):
            return np.zeros(len(item_hash), dtype=np.int64)
        place = np.minimum(np.searchsorted(shown, item_hash), len(shown) - 1)
        return np.where(shown[place] == item_hash, count[place], 0)

    def strategy(self, name: str) -> ServedStrategy:
        """Raises Invalid unknown_strategy."""
        found = self.manifest.strategies.get(name)
        if found is None:
            known = ", ".join(sorted(self.manifest.strategies))
            raise Invalid("unknown_strategy", f"no strategy {name!r}; known are {known}", path="strategy")
        return found


class Terms(NamedTuple):
    """What is settled before the ranking."""

    request_id: str
    strategy: str
    bucket: int | None  # of the traffic split, None where the caller or the default decided
    seed: int  # uint64
    top_k: int
    explain: bool = False


class Rows(NamedTuple):
    """A request's candidates as the model sees them."""

    ids: Sequence[str]  # (B,)
    batch: Batch
    item_hash: Array  # (B,) uint64
    impressions: Array  # (B,) int64
    bid: Array | None  # (B,) float64, 1 where a candidate has none; None where no candidate has one
    warnings: Sequence[WarningCode]


class Ranking(NamedTuple):
    """What was decided."""

    scores: Scores
    slate: Slate
    propensity: Array | None  # (L,) float64 in (0, 1]
    propensity_method: Literal["exact", "monte_carlo"] | None


def encode_rows(loaded: Loaded, request: RankRequest) -> Rows:
    """Raises Invalid with the code and the path of the feature at fault."""
    candidates = request.candidates
    ids = [candidate.id for candidate in candidates]
    try:
        context = loaded.encoder.context(
            user_id=request.user.id, user=request.user.features, context=request.context.features
        )
        items = _encode_items(loaded, ids, [candidate.features for candidate in candidates])
    except FeatureError as error:
        raise Invalid(error.code, error.message, path=error.path) from None
    bid, bid_warnings = _bids([candidate.bid for candidate in candidates])
    batch = Batch(*context, *items.rows)
    warnings = [*items.warnings, *bid_warnings]
    return Rows(ids, batch, items.item_hash, loaded.impressions(items.item_hash), bid, warnings)


class _Items(NamedTuple):
    rows: tuple[Array, Array]  # (B, Ki) int32, (B, Ki) float32
    item_hash: Array  # (B,) uint64
    warnings: Sequence[WarningCode] = ()


def _encode_items(loaded: Loaded, ids: Sequence[str], features: Sequence[Features | None]) -> _Items:
    """A candidate without any feature is the item that the store knows by its id, or else what its id alone says."""
    bare = features[0] is None and features.count(None) == len(ids)  # as a rule all are, or none is
    found = loaded.items.find(ids) if bare else None
    if found is not None and found.known.all():
        return _Items((found.index, found.weight), found.item_hash)
    index, weight, without = loaded.encoder.candidates(ids, features)
    if without and not bare:
        found = loaded.items.find(ids)
    if found is None:
        return _Items((index, weight), loaded.encoder.item_hashes(ids))
    places = np.array(without)
    stored = places[found.known[places]]
    index[stored], weight[stored] = found.index[stored], found.weight[stored]
    return _Items((index, weight), found.item_hash, ["item_unknown"] if len(stored) < len(places) else ())


async def rank(loaded: Loaded, rows: Rows, terms: Terms, *, check: Check) -> Ranking:
    """The slate of one request, repeatable from the seed and the version.

    Args:
        check: asked between draws.

    Raises:
        ServiceError: internal, not_ready, and what `check` raises.
    """
    scores, slate = await _draw(loaded, rows, terms, terms.seed)
    if slate.propensity is not None:
        return Ranking(scores, slate, slate.propensity, "exact")
    served = loaded.manifest.strategies[terms.strategy]
    if served.propensity_samples and any(one.scope != "version" for one in served.noise):
        return Ranking(scores, slate, await _monte_carlo(loaded, rows, terms, slate, check), "monte_carlo")
    return Ranking(scores, slate, None, None)


async def _draw(loaded: Loaded, rows: Rows, terms: Terms, seed: int) -> tuple[Scores, Slate]:
    served = loaded.manifest.strategies[terms.strategy]
    version = loaded.manifest.version
    noise = SeededNoise(served.noise, request_seed=seed, version=version, item_hash=rows.item_hash)
    scores = await loaded.engine.submit(terms.strategy, rows.batch, noise, served.lambda_, rows.impressions)
    if not np.isfinite(scores.score).all():  # JSON cannot say it, and an order by it means nothing
        raise Internal("internal", f"strategy {terms.strategy} gave a score that is no number")
    slate = choose(
        scores,
        item_hash=rows.item_hash,
        seed=seed,
        top_k=terms.top_k,
        bid=rows.bid,
        uniform_share=served.uniform_share,
    )
    return scores, slate


async def _monte_carlo(loaded: Loaded, rows: Rows, terms: Terms, slate: Slate, check: Check) -> Array:
    """How often each shown candidate is shown over `propensity_samples` draws, (L,) float64 in (0, 1].

    The draw that was served is one of them, so nothing that was shown has propensity 0; it also biases the estimate
    upwards, by at most 1 / samples.
    """
    samples = loaded.manifest.strategies[terms.strategy].propensity_samples
    shown = np.zeros(len(rows.item_hash))
    shown[slate.order] = 1.0
    for seed in combine(np.array([terms.seed], dtype=np.uint64), np.arange(1, samples, dtype=np.uint64)):
        await asyncio.sleep(0)  # the network is looked at
        check()
        _, drawn = await _draw(loaded, rows, terms, int(seed))
        shown[drawn.order] += 1.0
    return shown[slate.order] / samples


def _bids(bids: Sequence[float | None]) -> tuple[Array | None, Sequence[WarningCode]]:
    missing = bids.count(None)
    if missing == len(bids):
        return None, ()
    return np.array([1.0 if bid is None else bid for bid in bids]), ["bid_missing"] if missing else ()
