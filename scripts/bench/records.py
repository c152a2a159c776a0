"""Served records as a scorer would have written them."""

from typing import Any

from models.types import Batch
from scripts.bench.work import LANE
from service.events import Served


def record(batch: Batch, item_ids: list[str], p_click: list[float], **told: Any) -> Served:
    """Of a slate that holds all rows of the batch in their order, and of which nothing is said but what is `told`."""
    slots = len(item_ids)
    unsaid: dict[str, Any] = {
        "time_ms": 0,
        "lane": LANE,
        "strategy": "greedy",
        "version": 1,
        "lambda_": 0.0,
        "seed": 0,
        "spec_hash": "0" * 64,
        "bucket": None,
        "score": p_click,
        "explored": [False] * slots,
        "impressions": [1] * slots,
        "propensity": None,
    }
    return Served(
        context_index=batch.context_index.tobytes(),
        context_weight=batch.context_weight.tobytes(),
        item_ids=item_ids,
        item_index=batch.item_index.tobytes(),
        item_weight=batch.item_weight.tobytes(),
        p_click=p_click,
        **{**unsaid, **told},
    )
