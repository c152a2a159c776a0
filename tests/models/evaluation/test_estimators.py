import math
from collections.abc import Callable

import numpy as np
import pytest

from models.evaluation.estimators import (
    DeterministicLogError,
    Estimate,
    Logged,
    dr,
    ips,
    overlap,
    replay,
    snips,
    support,
)

ACTIONS, KINDS, RUNS, IMPRESSIONS = 5, 8, 200, 3_000
#: Estimators whose intervals must cover the truth, and a target that is all but greedy, or soft.
ESTIMATORS: dict[str, Callable[[Logged], Estimate]] = {"ips": ips, "snips": snips, "dr": dr}


def small(**columns: list[float]) -> Logged:
    given = {"reward": [1, 0, 1, 0], "propensity": [0.5, 0.25, 0.5, 0.25], "target": [1, 0, 0.5, 0.5]} | columns
    return Logged(**{name: np.array(column, dtype=np.float64) for name, column in given.items()})


def test_every_estimate_by_hand() -> None:
    log = small(model=[0.5, 0.5, 0.25, 0.25], value=[0.4, 0.2, 0.4, 0.2])
    np.testing.assert_allclose(log.weight, [2.0, 0.0, 1.0, 2.0])
    assert ips(log).value == pytest.approx(3.0 / 4)
    assert snips(log).value == pytest.approx(3.0 / 5)
    assert dr(log).value == pytest.approx((0.4 + 1.0 + 0.2 + 0.4 + 0.75 + 0.2 - 0.5) / 4)
    # A CTR of 3/5 in an effective sample of 25/9.
    assert support(log)[:6] == (4, 0, 3, pytest.approx(25 / 9), 2.0, pytest.approx(25 / 9 * 3 / 5 * 2 / 5))
    assert support(log).mean.value == pytest.approx(5 / 4)
    long = Logged(
        reward=np.tile(log.reward, 25), propensity=np.tile(log.propensity, 25), target=np.tile(log.target, 25)
    )
    half = 1.959964 * np.std([2.0, 0.0, 1.0, 0.0] * 25, ddof=1) / 10.0
    assert ips(long).low == pytest.approx(0.75 - half)
    assert ips(long).high == pytest.approx(0.75 + half)


@pytest.mark.parametrize(("clicks", "told"), [(0, False), (10, False), (11, True), (290, False), (300, False)])
def test_few_clicks_or_few_without_have_no_interval(clicks: int, told: bool) -> None:
    matched = np.arange(3_000) < 300
    reward = np.where(matched, np.arange(3_000) < clicks, np.arange(3_000) % 2).astype(np.float64)
    one_in_ten, value = np.full(3_000, 0.1), np.full(3_000, 0.05)
    log = Logged(reward=reward, propensity=one_in_ten, target=matched * 1.0, model=value, value=value)
    assert support(log).carried == pytest.approx(clicks * (1 - clicks / 300))
    for estimate in (ips, snips, dr, replay):
        found = estimate(log)
        assert math.isfinite(found.value)
        assert math.isfinite(found.low) == math.isfinite(found.high) == told


def test_many_clicks_of_small_weight_do_not_carry_an_estimate() -> None:
    shown = np.arange(3_800) % 38
    reward = (shown != 0) & (np.arange(3_800) % 20 == 1)  # 95 clicks on all but what the target shows most
    log = Logged(reward=reward * 1.0, propensity=np.full(3_800, 1 / 38), target=np.where(shown == 0, 0.95, 0.05 / 37))
    assert support(log).matched == 3_800
    assert support(log).carried < 1.0
    assert math.isnan(ips(log).low)


def test_replay_is_the_mean_of_what_the_target_shows() -> None:
    assert replay(small(target=[1, 1, 0, 0])).value == 0.5
    assert math.isnan(replay(small(target=[0, 0, 0, 0])).value)
    with pytest.raises(ValueError, match="for certain"):
        replay(small())


def test_the_overlap_table_counts_every_impression_once() -> None:
    rows = overlap(small(propensity=[0.001, 0.02, 0.03, 1.0]))
    assert [(row.propensity, row.impressions) for row in rows] == [(0.0, 1), (0.02, 2), (1.0, 1)]
    assert sum(row.share for row in rows) == pytest.approx(1.0)
    assert rows[0].largest == 1_000.0


def test_a_target_that_shows_nothing_of_the_log_has_no_snips() -> None:
    log = small(target=[0, 0, 0, 0])
    assert math.isnan(snips(log).value)
    assert ips(log).value == 0.0
    assert support(log).effective == 0.0
    assert sum(row.share for row in overlap(log)) == 0.0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"propensity": [0.5, 0.0, 0.5, 0.5]}, "row 1: propensity 0.0"),
        ({"propensity": [0.5, 0.5, 0.5, 1.5]}, "row 3: propensity 1.5"),
        ({"propensity": [0.5, math.nan, 0.5, 0.5]}, "row 1: propensity nan"),
        ({"target": [0.5, 0.5, -0.1, 0.5]}, "row 2: target"),
        ({"reward": [1, math.inf, 0, 0]}, "row 1: reward"),
        ({"reward": [1]}, "one length"),
        ({"model": [1, 1, 1, 1]}, "one of them is missing"),
    ],
)
def test_what_is_no_log_is_refused_with_its_row(columns: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**columns)


def test_a_deterministic_log_is_refused_with_a_clear_word() -> None:
    with pytest.raises(DeterministicLogError, match="deterministic"):
        small(propensity=[1, 1, 1, 1])
    assert support(small(propensity=[1, 0.5, 1, 0.5])).certain == 2
    with pytest.raises(ValueError, match="needs a model"):
        dr(small())


def simulated(seed: int, share: float) -> tuple[list[Logged], float]:
    """RUNS logs of users of KINDS kinds, shown one of ACTIONS items, and the target's true value.

    The logging policy is softmax of a wrong belief, mixed with uniform display; the model of DR is wrong, too.
    """
    generator = np.random.default_rng(seed)
    p_click = generator.beta(2.0, 8.0, (KINDS, ACTIONS))
    belief = np.exp(2.0 * generator.normal(size=(KINDS, ACTIONS)))
    logging = 0.7 * belief / belief.sum(axis=1, keepdims=True) + 0.3 / ACTIONS
    best = np.eye(ACTIONS)[np.argmax(p_click, axis=1)]
    target = share * best + (1.0 - share) / ACTIONS
    model = np.clip(p_click + generator.normal(0.0, 0.1, p_click.shape), 0.01, 0.99)
    truth = float((target * p_click).sum(axis=1).mean())
    kind = generator.integers(KINDS, size=(RUNS, IMPRESSIONS))
    lot = generator.random((RUNS, IMPRESSIONS, 1))
    shown = (lot > np.cumsum(logging, axis=1)[kind]).sum(axis=2)
    reward = (generator.random((RUNS, IMPRESSIONS)) < p_click[kind, shown]).astype(np.float64)
    value = (target * model).sum(axis=1)
    logs = [
        Logged(
            reward=reward[run],
            propensity=logging[kind[run], shown[run]],
            target=target[kind[run], shown[run]],
            model=model[kind[run], shown[run]],
            value=value[kind[run]],
        )
        for run in range(RUNS)
    ]
    return logs, truth


@pytest.mark.parametrize(("seed", "share"), [(0, 1.0), (1, 0.5)], ids=["deterministic target", "soft target"])
def test_intervals_cover_the_truth_as_often_as_they_say(seed: int, share: float) -> None:
    logs, truth = simulated(seed, share)
    width = {}
    for name, estimate in ESTIMATORS.items():
        found = [estimate(log) for log in logs]
        covered = np.mean([one.low <= truth <= one.high for one in found])
        assert 0.90 <= covered <= 0.98, name
        error = np.std([one.value for one in found]) / math.sqrt(RUNS)
        assert abs(np.mean([one.value for one in found]) - truth) < 4 * error, name
        width[name] = np.mean([one.high - one.low for one in found])
    assert width["dr"] < width["ips"]
    assert width["snips"] < width["ips"]


def test_the_weights_of_a_target_that_the_log_covers_have_mean_one_and_of_another_less() -> None:
    (log, *_), _ = simulated(3, 1.0)
    assert support(log).mean.low < 1.0 < support(log).mean.high
    seldom = log.propensity < np.median(log.propensity[log.target > 0.0])
    blind = Logged(reward=log.reward, propensity=log.propensity, target=np.where(seldom, 0.0, log.target))
    assert support(blind).mean.high < 1.0
