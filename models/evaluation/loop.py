"""The closed loop: a strategy rules the traffic of a world, learns from the clicks on what it showed, and so on.

One item is shown to each visit. The world knows every click probability, so what is reported besides clicks is free of
their noise: expected clicks, and the regret against the best candidate of each visit.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from models.evaluation.driver import Choices, Driver, Examples, Protocol
from models.evaluation.worlds.world import Scene, World
from models.learner import Learner
from models.metrics import auc, known, log_loss, pcoc
from models.registry import Strategy
from models.types import Array

#: Points of the curves over the visits.
POINTS = 50


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """When an item has left its exploration phase: shown so often, and to so many users (Taboola's throughput)."""

    impressions: int = 200
    users: int = 50


class Age(NamedTuple):
    """What happened to items that had been shown `impressions` times or more, below the next of these bounds."""

    impressions: int
    shown: int
    clicks: int
    predicted: float  # sum of p_click


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a strategy did with the visits after the warm-up."""

    visits: int
    clicks: int
    expected_clicks: float  # sum of the true probabilities of what was shown
    oracle_clicks: float  # of the best candidate of every visit
    random_clicks: float  # of the mean candidate of every visit
    changed: float  # share of visits for which exploration changed the pick
    pcoc: float | None  # of the model's prediction for what was shown; None without clicks
    log_loss: float
    auc: float | None
    lambda_: float  # at the end
    crossed: int  # items that left their exploration phase
    crossed_ctr: float | None  # their mean click probability where they were shown; None without any
    regret: list[float]  # cumulative, at POINTS equal steps
    ctr: list[float]  # of each of these steps
    ages: list[Age]

    def row(self) -> dict[str, Any]:
        """As JSON would have it."""
        return asdict(self) | {"ages": [one._asdict() for one in self.ages]}


class _Shown(NamedTuple):
    """What was shown to V visits, and the alternatives."""

    item: Array  # (V,) int64
    user: Array  # (V,) int64
    p_true: Array  # (V,) float64
    best: Array  # (V,) float64
    mean: Array  # (V,) float64
    click: Array  # (V,) float32
    p_click: Array  # (V,) float32
    changed: Array  # (V,) bool
    impressions: Array  # (V,) int64, of the item before


def run(
    world: World,
    *,
    strategy: Strategy,
    make: Callable[[int], Learner],
    seed: int,
    visits: int,
    protocol: Protocol,
    warm_up_pace: float = 1.0,
    crossing: Crossing | None = None,
    follow: Callable[[float], None] = lambda share: None,
) -> Result:
    """One life of a strategy in a world that nothing else has used.

    Args:
        world: fresh, of this seed.
        strategy: to judge.
        make: a fresh learner for the world's spec, as of `Driver`.
        seed: of the strategy's noise and of the random display of the warm-up.
        visits: after the warm-up.
        protocol: of the loop.
        warm_up_pace: see `World.visits`, of the visits of the warm-up.
        crossing: when an item has left its exploration phase.
        follow: is told now and then which share is done.
    """
    driver = Driver(strategy=strategy, make=make, items=world.items, seed=seed, protocol=protocol)
    generator = np.random.default_rng([seed, 4])
    total = protocol.warm_up + visits
    for size in _sizes(protocol.warm_up, protocol.update_every):
        scene = world.visits(size, pace=warm_up_pace)
        start = scene.visits.start
        pool = np.diff(np.append(start, len(scene.visits.item)))
        driver.learn(_examples(scene, start + generator.integers(pool)))
    parts: list[_Shown] = []
    done = protocol.warm_up
    for size in _sizes(visits, protocol.update_every):
        scene = world.visits(size)
        choices = driver.pick(scene.visits)
        driver.observe(choices.changed)
        parts.append(_shown(scene, choices, driver))
        driver.learn(_examples(scene, choices.row))
        done += size
        follow(done / total)
    shown = _Shown(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
    return _result(shown, driver.lambda_, crossing or Crossing())


def _sizes(total: int, size: int) -> list[int]:
    return [min(size, total - first) for first in range(0, total, size)]


def _examples(scene: Scene, row: Array) -> Examples:
    click = (scene.luck < scene.p_click[row]).astype(np.float32)
    return Examples(scene.visits.context_index, scene.visits.context_weight, scene.visits.item[row], click)


def _shown(scene: Scene, choices: Choices, driver: Driver) -> _Shown:
    start, row = scene.visits.start, choices.row
    item, p_true = scene.visits.item[row], scene.p_click[row]
    size = np.diff(np.append(start, len(scene.p_click)))
    return _Shown(
        item=item,
        user=scene.user,
        p_true=p_true,
        best=np.maximum.reduceat(scene.p_click, start),
        mean=np.add.reduceat(scene.p_click, start) / size,
        click=(scene.luck < p_true).astype(np.float32),
        p_click=choices.p_click,
        changed=choices.changed,
        impressions=driver.impressions[item],
    )


def _result(shown: _Shown, lambda_: float, crossing: Crossing) -> Result:
    count, predicted = len(shown.item), np.asarray(shown.p_click, dtype=np.float64)
    ends = np.linspace(0, count, POINTS + 1).astype(np.int64)
    clicks = np.concatenate([[0.0], np.cumsum(shown.click, dtype=np.float64)])
    regret = np.cumsum(shown.best - shown.p_true)
    crossed = _crossed(shown, crossing)
    rates = [shown.p_true[shown.item == one].mean() for one in crossed.tolist()]
    return Result(
        visits=count,
        clicks=int(shown.click.sum()),
        expected_clicks=float(shown.p_true.sum()),
        oracle_clicks=float(shown.best.sum()),
        random_clicks=float(shown.mean.sum()),
        changed=float(shown.changed.mean()),
        pcoc=known(pcoc(predicted, shown.click)),
        log_loss=log_loss(predicted, shown.click),
        auc=known(auc(predicted, shown.click)),
        lambda_=lambda_,
        crossed=len(crossed),
        crossed_ctr=known(float(np.mean(rates)) if rates else math.nan),
        regret=regret[ends[1:] - 1].tolist(),
        ctr=(np.diff(clicks[ends]) / np.maximum(np.diff(ends), 1)).tolist(),
        ages=_ages(shown),
    )


def _crossed(shown: _Shown, crossing: Crossing) -> Array:
    """Numbers of the items that were shown often enough, and to enough users."""
    items, impressions = np.unique(shown.item, return_counts=True)
    often = items[impressions >= crossing.impressions]
    pairs = np.unique(np.stack([shown.item, shown.user]), axis=1)
    met, users = np.unique(pairs[0], return_counts=True)
    return np.intersect1d(often, met[users >= crossing.users])


def _ages(shown: _Shown) -> list[Age]:
    """By impressions before the visit, in powers of two from 1 on; those without any come first."""
    level = np.where(shown.impressions > 0, 1 + np.log2(np.maximum(shown.impressions, 1)).astype(np.int64), 0)
    ages = []
    for one in np.unique(level).tolist():
        rows = level == one
        ages.append(
            Age(
                impressions=0 if one == 0 else 2 ** (one - 1),
                shown=int(rows.sum()),
                clicks=int(shown.click[rows].sum()),
                predicted=float(shown.p_click[rows].sum(dtype=np.float64)),
            )
        )
    return ages
