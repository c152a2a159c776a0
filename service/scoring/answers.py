"""A ranking, told twice: to the caller as the response, to the trainer as the served record."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec import UNSET

from models.types import Array
from service.events import Served, from_millis
from service.scoring.ranking import Loaded, Ranking, Rows, Terms
from service.scoring.schemas import Experiment, Explain, Gate, Model, RankedItem, RankResponse, WarningCode


class Shown(NamedTuple):
    """What both are told of the L shown items, best first."""

    ids: list[str]
    p_click: list[float]
    score: list[float]  # before any bid
    explored: list[bool]
    propensity: list[float] | None


def shown(rows: Rows, ranking: Ranking) -> Shown:
    """The columns of the slate."""
    scores, order = ranking.scores, ranking.slate.order
    return Shown(
        [rows.ids[place] for place in order.tolist()],
        scores.p_click[order].tolist(),
        scores.score[order].tolist(),
        ranking.slate.explored.tolist(),
        None if ranking.propensity is None else ranking.propensity.tolist(),
    )


def to_response(
    loaded: Loaded,
    terms: Terms,
    rows: Rows,
    ranking: Ranking,
    told: Shown,
    *,
    warnings: Sequence[WarningCode],
    took_ms: float,
) -> RankResponse:
    """What the caller gets. Equal terms and versions give equal answers, but for `took_ms`."""
    manifest = loaded.manifest
    method = ranking.propensity_method
    timestamp_ms = manifest.data_timestamp_ms
    samples = manifest.strategies[terms.strategy].propensity_samples
    return RankResponse(
        request_id=terms.request_id,
        model=Model(
            name=manifest.lane,
            version=manifest.version,
            data_timestamp=from_millis(timestamp_ms) if timestamp_ms else None,
        ),
        strategy=terms.strategy,
        experiment=UNSET if terms.bucket is None else Experiment(bucket=terms.bucket, strategy=terms.strategy),
        items=_items(loaded, terms, rows, ranking, told),
        propensity_method=method or UNSET,
        propensity_samples=samples if method == "monte_carlo" else UNSET,
        warnings=list(warnings) or UNSET,
        took_ms=took_ms,
    )


def to_served(loaded: Loaded, terms: Terms, rows: Rows, ranking: Ranking, told: Shown, *, time_ms: int) -> Served:
    """What the trainer gets: the shown rows as the model saw them, and what it said of them."""
    order, manifest = ranking.slate.order, loaded.manifest
    return Served(
        request_id=terms.request_id,
        time_ms=time_ms,
        lane=manifest.lane,
        strategy=terms.strategy,
        version=manifest.version,
        lambda_=manifest.strategies[terms.strategy].lambda_,
        seed=terms.seed,
        spec_hash=manifest.spec_hash,
        bucket=terms.bucket,
        context_index=rows.batch.context_index.tobytes(),
        context_weight=rows.batch.context_weight.tobytes(),
        item_ids=told.ids,
        item_index=rows.batch.item_index.take(order, axis=0).tobytes(),
        item_weight=rows.batch.item_weight.take(order, axis=0).tobytes(),
        p_click=told.p_click,
        score=told.score,
        explored=told.explored,
        impressions=rows.impressions[order].tolist(),
        propensity=told.propensity,
    )


def _items(loaded: Loaded, terms: Terms, rows: Rows, ranking: Ranking, told: Shown) -> list[RankedItem]:
    order = ranking.slate.order
    value = told.score if rows.bid is None else (ranking.scores.score[order] * rows.bid[order]).tolist()
    ranks = range(1, len(order) + 1)
    if told.propensity is None and not terms.explain:
        return list(map(RankedItem, told.ids, ranks, value, told.p_click, told.explored))
    unset = [UNSET] * len(order)
    propensity = unset if told.propensity is None else told.propensity
    explain = _explain(loaded, terms, rows, ranking) if terms.explain else unset
    return list(map(RankedItem, told.ids, ranks, value, told.p_click, told.explored, propensity, explain))


def _explain(loaded: Loaded, terms: Terms, rows: Rows, ranking: Ranking) -> list[Explain]:
    scores, order = ranking.scores, ranking.slate.order
    lambda_ = loaded.manifest.strategies[terms.strategy].lambda_
    moved = (scores.gate_open > 0) & (scores.gradient_norm > 0)
    columns: dict[str, Array] = {
        "p_click": scores.p_click,
        "score": scores.score,
        "delta": scores.score - scores.p_click,
        "uncertainty": scores.uncertainty,
        "gradient_norm": scores.gradient_norm,
        "step": np.where(moved, lambda_ * scores.uncertainty, 0.0),
        "impressions": rows.impressions,
        "rank_without_exploration": ranking.slate.greedy + 1,
    }
    gates = zip(scores.gate_open[order].tolist(), scores.gate_threshold[order].tolist(), strict=True)
    values = zip(*(column[order].tolist() for column in columns.values()), strict=True)
    return [
        Explain(gate=Gate(bool(is_open), threshold), **dict(zip(columns, row, strict=True)))
        for (is_open, threshold), row in zip(gates, values, strict=True)
    ]
