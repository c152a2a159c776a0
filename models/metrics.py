"""Quality of predicted click probabilities. numpy only; NaN where a metric is undefined.

Every metric takes p (N,) in [0, 1] and y (N,) in {0, 1}; some weight (N,), how many examples each one stands for.
"""

import math

import numpy as np

from models.types import Array

_SMALLEST = 1e-7  # a float32 sigmoid may round to 0 or 1; one sure and wrong prediction must not make a mean infinite


def log_loss(p: Array, y: Array, weight: Array | None = None) -> float:
    """Mean cross entropy in nats."""
    if len(p) == 0:
        return math.nan
    p = np.clip(np.asarray(p, dtype=np.float64), _SMALLEST, 1.0 - _SMALLEST)
    return float(-np.average(np.where(y > 0, np.log(p), np.log1p(-p)), weights=weight))


def auc(p: Array, y: Array) -> float:
    """Probability that a clicked row is predicted above an unclicked one, ties counting half."""
    clicked = np.asarray(y) > 0
    clicks, others = int(clicked.sum()), int((~clicked).sum())
    if clicks == 0 or others == 0:
        return math.nan
    _, value, count = np.unique(p, return_inverse=True, return_counts=True)
    rank = np.cumsum(count) - (count - 1) / 2  # 1-based; equal predictions share their mean rank
    return float((rank[value][clicked].sum() - clicks * (clicks + 1) / 2) / (clicks * others))


def pcoc(p: Array, y: Array, weight: Array | None = None) -> float:
    """Predicted clicks over clicks: 1 is calibrated, above 1 predicts too much."""
    weight = np.ones(len(p)) if weight is None else weight
    clicks = float(np.sum(weight * y, dtype=np.float64))
    return float(np.sum(weight * p, dtype=np.float64) / clicks) if clicks else math.nan


def known(value: float) -> float | None:
    """None where a metric is undefined: JSON has no NaN."""
    return None if math.isnan(value) else value
