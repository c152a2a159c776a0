"""A ranking, told twice: to the caller as the response, to the trainer as the served record."""

from collections.abc import Sequence

import numpy as np
from msgspec import UNSET

from models.types import Array
from service.events import Served, from_millis
from service.scoring.ranking import Loaded, Ranking, Rows, Terms
from service.scoring.schemas import (
    Experiment,
    Explain,
    Gate,
    Model,
    RankedItem,
    RankRequest,
    RankResponse,
    WarningCode,
)


def to_response(
    loaded: Loaded,
    request: RankRequest,
    terms: Terms,
    rows: Rows,
    ranking: Ranking,
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
        items=_items(loaded, request, terms, rows, ranking),
        propensity_method=method or UNSET,
        propensity_samples=samples if method == "monte_carlo" else UNSET,
        warnings=list(warnings) or UNSET,
        took_ms=took_ms,
    )


def to_served(
    loaded: Loaded, request: RankRequest, terms: Terms, rows: Rows, ranking: Ranking, *, time_ms: int
) -> Served:
    """What the trainer gets: the shown rows as the model saw them, and what it said of them (before any bid)."""
    scores, slate, manifest = ranking.scores, ranking.slate, loaded.manifest
    shown = slate.order
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
        item_ids=[request.candidates[place].id for place in shown],
        item_index=rows.batch.item_index[shown].tobytes(),
        item_weight=rows.batch.item_weight[shown].tobytes(),
        p_click=scores.p_click[shown].tolist(),
        score=scores.score[shown].tolist(),
        explored=slate.explored.tolist(),
        impressions=rows.impressions[shown].tolist(),
        propensity=None if ranking.propensity is None else ranking.propensity.tolist(),
    )


def _items(loaded: Loaded, request: RankRequest, terms: Terms, rows: Rows, ranking: Ranking) -> list[RankedItem]:
    scores, slate = ranking.scores, ranking.slate
    shown = slate.order
    value = scores.score[shown] if rows.bid is None else scores.score[shown] * rows.bid[shown]
    unset = [UNSET] * len(shown)
    return list(
        map(
            RankedItem,
            [request.candidates[place].id for place in shown.tolist()],
            range(1, len(shown) + 1),
            value.tolist(),
            scores.p_click[shown].tolist(),
            slate.explored.tolist(),
            unset if ranking.propensity is None else ranking.propensity.tolist(),
            _explain(loaded, terms, rows, ranking) if request.explain else unset,
        )
    )


def _explain(loaded: Loaded, terms: Terms, rows: Rows, ranking: Ranking) -> list[Explain]:
    scores, shown = ranking.scores, ranking.slate.order
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
    gates = zip(scores.gate_open[shown].tolist(), scores.gate_threshold[shown].tolist(), strict=True)
    values = zip(*(column[shown].tolist() for column in columns.values()), strict=True)
    return [
        Explain(gate=Gate(bool(is_open), threshold), **dict(zip(columns, row, strict=True)))
        for (is_open, threshold), row in zip(gates, values, strict=True)
    ]
