"""Belief and choice meet here: scores become an order, and the order is compared with the greedy one. numpy only."""

import numpy as np

from models.noise import combine, mix
from models.types import Array, Scores, Slate


def tie_break(item_hash: Array, seed: int | Array) -> Array:
    """(B,) uint64 that orders equal scores: repeatable for a seed, fair over seeds. One seed, or (B,) uint64."""
    return combine(mix(item_hash), np.asarray(seed, dtype=np.uint64))


def order_by(value: Array, item_hash: Array, seed: int) -> Array:
    """(B,) candidates by descending value, ties by `tie_break`."""
    order = (-value).argsort()
    ordered = value.take(order)
    if (ordered[1:] == ordered[:-1]).any():  # only then is the tie break worth its hashes
        return np.lexsort((tie_break(item_hash, seed), -value))
    return order


def choose(
    scores: Scores,
    *,
    item_hash: Array,
    seed: int,
    top_k: int,
    bid: Array | None = None,
    uniform_share: float | None = None,
) -> Slate:
    """The slate of one request.

    Args:
        scores: of B candidates.
        item_hash: (B,) uint64.
        seed: the request's.
        top_k: L = min(top_k, B).
        bid: (B,) float: orders by score x bid, expected revenue.
        uniform_share: the probability with which the method orders uniformly at random and else greedily; gives the
            closed form of the propensity, unless bids differ: they weight the random order, too. None where the method
            is of another kind.
    """
    count = len(item_hash)
    shown = min(top_k, count)
    greedy_value, value = (one if bid is None else one * bid for one in (scores.p_click, scores.score))
    greedy_order = order_by(greedy_value, item_hash, seed)
    explores = (scores.score != scores.p_click).any()
    order = (order_by(value, item_hash, seed) if explores else greedy_order)[:shown]
    greedy = np.empty(count, dtype=np.int64)
    greedy[greedy_order] = np.arange(count)
    propensity = None
    if uniform_share and (bid is None or (bid == bid[0]).all()):
        # P(shown) = share * L / B + (1 - share) * [greedy shows it]
        propensity = uniform_share * shown / count + (1.0 - uniform_share) * (greedy[order] < shown)
    return Slate(order=order, greedy=greedy, explored=order != greedy_order[:shown], propensity=propensity)
