"""What is known of items besides a log: features of all of them, and what earlier traffic made of items of the past.

A line each, as JSON:

    {"id": "id-105861", "features": {"words": ["you", "won't", "believe"]}}
    {"id": "id-100007", "features": {"words": ["this"]}, "impressions": 3412, "clicks": 51}

The impressions of the past teach the click model before the log begins, so that it foretells new items by what they
share with old ones.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
import numpy as np
from msgspec import Meta

from models.features import Encoder, FeatureError, Features
from models.learner import Learner
from models.networks.click import ClickNetwork
from models.spec import FeatureSpec
from models.types import Array, Batch

#: Times that the past is learned, and examples of a step. Ours: what a number is worth is not learned in fewer passes.
_PASSES, _BATCH = 3, 4_096
#: Ours: twice as many examples, of 20 bytes each, and some minutes.
MOST_CLICKS = 20_000_000


Count = Annotated[int, Meta(ge=0, le=2**53)]


class Known(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An item."""

    id: Annotated[str, Meta(min_length=1)]
    features: dict[str, Any] = {}
    impressions: Count = 0
    clicks: Count = 0


class Catalogue(NamedTuple):
    """All items that are known."""

    features: Mapping[str, Features]  # by id
    past: Sequence[Known]  # those with impressions


def read(lines: Iterable[bytes], spec: FeatureSpec) -> Catalogue:
    """Items, one a line.

    Raises:
        ValueError: with the number of the line, no such object, features that the spec does not have, more clicks than
            impressions, or an id for the second time; of all, a past without a click, or with more than are learned.
    """
    decoder, encoder = msgspec.json.Decoder(Known), Encoder(spec)
    features: dict[str, Features] = {}
    past = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            one = _usable(decoder.decode(line), encoder)
            if one.id in features:
                raise ValueError(f"{one.id} for the second time")
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {number}: {error}") from None
        features[one.id] = one.features
        if one.impressions:
            past.append(one)
    clicks = sum(one.clicks for one in past)
    if past and not clicks:
        raise ValueError("the past has no click, of which nothing can be learned")
    if clicks > MOST_CLICKS:
        raise ValueError(f"{clicks} clicks of the past; at most {MOST_CLICKS} are learned: divide all counts alike")
    return Catalogue(features, past)


def _usable(item: Known, encoder: Encoder) -> Known:
    try:
        encoder.items([item.id], [item.features])
    except FeatureError as error:
        raise ValueError(f"{error.path.removeprefix('candidates[0].')}: {error.message}") from None
    if item.clicks > item.impressions:
        raise ValueError(f"{item.clicks} clicks on {item.impressions} impressions")
    return item


def learned(past: Sequence[Known], network: ClickNetwork, *, seed: int, learning_rate: float = 0.003) -> Learner:
    """A click model that has learned every click of the past, and about as many of the other impressions, three times.

    There must be a click. Their order is random: counts do not tell it. Whose impressions they were is not known
    either, so that features of users and contexts are missing. So are the items' ids: what a model keeps of an old one
    says nothing of new items, and what their features say must not hide behind it.
    """
    generator = np.random.default_rng([seed, len(past)])
    clicks = np.array([one.clicks for one in past])
    others = np.array([one.impressions for one in past]) - clicks
    rate = min(1.0, int(clicks.sum()) / max(sum(others.tolist()), 1))  # impressions may be more than an int64 holds
    learner = Learner(network, learning_rate=learning_rate, seed=seed, negative_rate=rate)
    kept = np.repeat(np.tile(np.arange(len(past)), 2), np.concatenate([clicks, generator.binomial(others, rate)]))
    label = (np.arange(len(kept)) < clicks.sum()).astype(np.float32)
    encoder = Encoder(network.spec)
    context = encoder.context()
    index, weight = encoder.items([None] * len(past), [one.features for one in past])
    for _ in range(_PASSES):
        for rows in np.array_split(generator.permutation(len(kept)), max(1, -(-len(kept) // _BATCH))):
            item = kept[rows]
            learner.learn(Batch(*context, index[item], weight[item]), label[rows], _one_context(len(rows)))
    return learner


def _one_context(rows: int) -> Array:
    return np.zeros(rows, dtype=np.int64)
