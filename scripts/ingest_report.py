"""How well the model predicted a log before it learned from it: over all of it, and day by day."""

from collections.abc import Iterable
from datetime import date, datetime, tzinfo
from math import isnan
from typing import Any

import numpy as np
from rich.table import Table

from models import metrics
from models.types import Array
from service.training.outcome import Predictions

_QUARTER_MS = 15 * 60 * 1000  # every zone's midnight falls on one


class Report:
    """Collects progressive predictions.

    Args:
        zone: whose midnight divides the days.
        since: a day from which on everything is one more window, or None.
    """

    def __init__(self, zone: tzinfo, *, since: date | None = None) -> None:
        self._zone, self._since = zone, since
        self._parts: list[Predictions] = []

    def add(self, predictions: Iterable[Predictions]) -> None:
        self._parts += predictions

    def rows(self) -> list[dict[str, Any]]:
        """One for all, one for `since`, one for each day with examples. NaN where a metric is undefined."""
        time_ms = np.concatenate([np.zeros(0, np.int64), *(part.time_ms for part in self._parts)])
        p = np.concatenate([np.zeros(0, np.float32), *(part.p for part in self._parts)])
        label = np.concatenate([np.zeros(0, np.float32), *(part.label for part in self._parts)])
        weight = np.concatenate([np.zeros(0, np.float32), *(part.weight for part in self._parts)])
        day = self._days(time_ms)
        windows = [("all", np.ones(len(p), dtype=bool))]
        if self._since is not None:
            windows.append((f"from {self._since}", day >= np.datetime64(self._since)))
        windows += [(str(one), day == one) for one in np.unique(day)]
        return [_row(name, p[inside], label[inside], weight[inside]) for name, inside in windows]

    def _days(self, time_ms: Array) -> Array:
        """(N,) datetime64[D]: the local day of each."""
        quarter, index = np.unique(time_ms // _QUARTER_MS, return_inverse=True)
        local = [datetime.fromtimestamp(one * _QUARTER_MS / 1000, self._zone).date() for one in quarter.tolist()]
        return np.array(local, dtype="datetime64[D]")[index]


def table(rows: Iterable[dict[str, Any]]) -> Table:
    """The rows for people."""
    shown = Table(title="Progressive: each example was predicted before it was learned", title_justify="left")
    for number, column in enumerate(("window", "examples", "AUC", "log loss", "PCOC")):
        shown.add_column(column, justify="right" if number else "left")
    for row in rows:
        measured = ("-" if isnan(row[name]) else f"{row[name]:.4f}" for name in ("auc", "log_loss", "pcoc"))
        shown.add_row(row["window"], f"{row['examples']:,}", *measured)
    return shown


def _row(window: str, p: Array, label: Array, weight: Array) -> dict[str, Any]:
    return {
        "window": window,
        "examples": len(p),
        "auc": metrics.auc(p, label),  # the same for any sample of the unclicked, but for chance
        "log_loss": metrics.log_loss(p, label, weight),
        "pcoc": metrics.pcoc(p, label, weight),
    }
