"""What the demo's users saw: counted, shown as a table, summed up as JSON.

Everything is measured from outside, as a caller sees it. Only the world knows the click probabilities.
"""

import time
from array import array
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.table import Table

from models.evaluation.worlds.r6b import Visit
from models.types import Array


@dataclass
class Figures:
    """One strategy, as its users saw it."""

    requests: int = 0
    clicks: int = 0
    explored: int = 0
    p_click: "array[float]" = field(default_factory=lambda: array("d"))  # of every impression, in order
    clicked: "array[int]" = field(default_factory=lambda: array("b"))

    @property
    def impressions(self) -> int:
        return len(self.clicked)

    @property
    def ctr(self) -> float:
        return self.clicks / self.impressions

    @property
    def explored_share(self) -> float:
        """Of the slots, those that hold another candidate than greedy would have put there."""
        return self.explored / self.impressions

    @property
    def pcoc(self) -> float:
        """Predicted clicks over clicks in the last third of the impressions, when the model has settled."""
        start = self.impressions * 2 // 3
        clicks = sum(self.clicked[start:])
        return sum(self.p_click[start:]) / clicks if clicks else float("nan")


class Seen:
    """All that the users saw.

    Args:
        learned: (after, version) -> Unix milliseconds of the clicks that the versions between, and the last, learned.
    """

    def __init__(self, learned: Callable[[int, int], list[int]]) -> None:
        self._learned = learned
        self.requests = 0
        self.failures: Counter[str] = Counter()
        self.versions: list[int] = []  # in the order of their first answer
        self.click_to_serving_s: list[float] = []
        self.oracle_ctr: list[float] = []  # of each visit
        self.random_ctr: list[float] = []
        self.strategies: dict[str, Figures] = {}

    @property
    def failed(self) -> int:
        return self.failures.total()

    def slate(self, visit: Visit, answer: dict[str, Any], clicked: Array) -> None:
        """An answer to POST /v1/rank, and which of its items were clicked, (L,) bool."""
        items = answer["items"]
        figures = self.strategies.setdefault(answer["strategy"], Figures())
        figures.requests += 1
        figures.clicks += int(clicked.sum())
        figures.explored += sum(item["explored"] for item in items)
        figures.p_click.extend(item["p_click"] for item in items)
        figures.clicked.extend(clicked.tolist())
        self.oracle_ctr.append(visit.oracle_ctr(len(items)))
        self.random_ctr.append(visit.random_ctr())
        self._version(answer["model"]["version"])

    def _version(self, version: int) -> None:
        """Its first answer: from now on the clicks that it learned are being served, end to end."""
        if self.versions and version <= self.versions[-1]:
            return
        if self.versions:
            now_ms = time.time() * 1000.0
            self.click_to_serving_s += [
                (now_ms - click) / 1000.0 for click in self._learned(self.versions[-1], version)
            ]
        self.versions.append(version)

    def report(self) -> dict[str, Any]:
        """The demo's last line. NaN where there is nothing to divide by."""
        p50, p99 = self._freshness()
        return {
            "requests": self.requests,
            "failed": self.failed,
            "versions_swapped": max(len(self.versions) - 1, 0),
            "click_to_serving_seconds": {"p50": p50, "p99": p99},
            "oracle_ctr": _mean(self.oracle_ctr),
            "random_ctr": _mean(self.random_ctr),
            "strategies": {
                name: {
                    "impressions": one.impressions,
                    "clicks": one.clicks,
                    "ctr": one.ctr,
                    "pcoc": one.pcoc,
                    "explored": one.explored_share,
                }
                for name, one in sorted(self.strategies.items())
            },
        }

    def table(self, title: str) -> Table:
        """A row a strategy; all are served by one model, so that its version and freshness are the same for all."""
        columns = ("strategy", "requests", "CTR", "PCOC", "explored", "model", "click to serving")
        table = Table(title=title, caption=self.line(), title_justify="left", caption_justify="left")
        for number, column in enumerate(columns):
            table.add_column(column, justify="right" if number else "left")
        for name, one in sorted(self.strategies.items()):
            rates = f"{one.ctr:.2%}", f"{one.pcoc:.2f}", f"{one.explored_share:.1%}"
            table.add_row(
                name, f"{one.requests:,}", *rates, f"{self.versions[-1]:,}", "{:.1f} s".format(*self._freshness())
            )
        return table

    def line(self) -> str:
        """The same in a line, for whoever has no terminal."""
        ctr = ", ".join(f"{name} {one.ctr:.2%}" for name, one in sorted(self.strategies.items()))
        bounds = f"random {_mean(self.random_ctr):.2%}, oracle {_mean(self.oracle_ctr):.2%}"
        swapped = max(len(self.versions) - 1, 0)
        return (
            f"CTR {ctr or '-'} ({bounds}); {self.requests:,} requests, {self.failed} failed, {swapped} versions swapped"
        )

    def _freshness(self) -> tuple[float, float]:
        """(p50, p99) of click to serving in seconds."""
        if not self.click_to_serving_s:
            return float("nan"), float("nan")
        p50, p99 = np.percentile(self.click_to_serving_s, (50, 99))
        return float(p50), float(p99)


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
