import math
from typing import Any

import numpy as np
import pytest

from models.evaluation.driver import Protocol
from models.evaluation.loop import POINTS, Crossing, Result, run
from models.evaluation.worlds.glm import GlmWorld
from models.evaluation.worlds.r6b import R6bWorld
from models.evaluation.worlds.world import Scene, World
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.registry import build
from models.types import Batch

STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {},
    "greedy": {},
    "epsilon_greedy": {"epsilon": 0.2},
    "age": {"rate": 0.1, "budget": 0.2},
}
PROTOCOL = Protocol(warm_up=100, update_every=50, batch_size=32)


class Counting(Learner):
    """Remembers how many examples each learner was given."""

    def __init__(self, network: ClickNetwork, seed: int, seen: list[list[int]]) -> None:
        super().__init__(network, learning_rate=0.01, seed=seed)
        self._seen: list[int] = []
        seen.append(self._seen)

    def learn(self, batch: Batch, label: np.ndarray, *rest: Any, **more: Any) -> np.ndarray:
        self._seen.append(len(label))
        return super().learn(batch, label, *rest, **more)


def live(
    world: World,
    name: str,
    *,
    visits: int = 1_000,
    protocol: Protocol = PROTOCOL,
    seed: int = 0,
    seen: list[list[int]] | None = None,
    **more: Any,
) -> Result:
    network = ClickNetwork(world.spec, NetworkConfig(hidden=(16, 8), gate_hidden=8, initial_ctr=0.1))
    return run(
        world,
        strategy=build(name, STRATEGIES[name]),
        make=lambda round_: Counting(network, seed + round_, [] if seen is None else seen),
        seed=seed,
        visits=visits,
        protocol=protocol,
        **more,
    )


@pytest.fixture(scope="module")
def results() -> dict[str, Result]:
    return {name: live(GlmWorld(seed=1), name, visits=4_000) for name in STRATEGIES}


def test_every_strategy_meets_the_same_world(results: dict[str, Result]) -> None:
    first = results["random"]
    for one in results.values():
        assert one.visits == 4_000
        assert one.oracle_clicks == pytest.approx(first.oracle_clicks)
        assert one.random_clicks == pytest.approx(first.random_clicks)
        assert one.expected_clicks < one.oracle_clicks
        assert abs(one.clicks - one.expected_clicks) < 4 * math.sqrt(one.expected_clicks)


def test_the_curves_end_where_the_totals_are(results: dict[str, Result]) -> None:
    for one in results.values():
        assert len(one.regret) == len(one.ctr) == POINTS
        assert one.regret[-1] == pytest.approx(one.oracle_clicks - one.expected_clicks)
        assert (np.diff(one.regret) >= 0).all()
        assert np.mean(one.ctr) * one.visits == pytest.approx(one.clicks)
        assert sum(age.shown for age in one.ages) == one.visits
        assert sum(age.clicks for age in one.ages) == one.clicks
        assert sum(age.predicted for age in one.ages) / one.clicks == pytest.approx(one.pcoc)
        bounds = [age.impressions for age in one.ages]
        assert bounds == sorted(bounds)
        assert set(bounds) <= {0, *(2**power for power in range(12))}


def test_random_is_random_and_the_others_learn(results: dict[str, Result]) -> None:
    chance = results["random"]
    assert chance.expected_clicks == pytest.approx(chance.random_clicks, rel=0.05)
    assert chance.changed > 0.8
    assert results["greedy"].changed == 0.0
    assert 0.1 < results["epsilon_greedy"].changed < 0.3
    for name in ("greedy", "epsilon_greedy", "age"):
        assert results[name].expected_clicks > 1.5 * chance.expected_clicks


def test_a_seed_repeats_the_run_and_another_does_not() -> None:
    one, again, other = (live(R6bWorld(seed=1), "age", visits=300, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_what_random_display_taught_is_not_judged() -> None:
    seen: list[list[int]] = []
    assert live(GlmWorld(seed=0), "greedy", visits=230, seen=seen).visits == 230
    (only,) = seen
    assert sum(only) == 100 + 230
    assert max(only) <= 32


def test_a_window_is_learned_afresh_and_forgets_the_oldest() -> None:
    seen: list[list[int]] = []
    protocol = Protocol(warm_up=100, update_every=50, batch_size=32, window=120)
    live(GlmWorld(seed=0), "greedy", visits=200, protocol=protocol, seen=seen)
    # One learner before there is anything, one after the warm-up, one before each later partition.
    assert [sum(one) for one in seen] == [0, 100, 120, 120, 120]


def test_items_cross_when_shown_often_enough_to_enough_users() -> None:
    def crossed(**limits: int) -> int:
        return live(R6bWorld(seed=0), "random", visits=1_000, crossing=Crossing(**limits)).crossed

    assert crossed(impressions=1, users=1) > 30
    assert crossed(impressions=10, users=1) >= crossed(impressions=20, users=1) > crossed(impressions=60, users=1) == 0
    assert crossed(impressions=1, users=60) == 0


def test_who_follows_is_told_the_share_that_is_done() -> None:
    shares: list[float] = []
    live(GlmWorld(seed=0), "random", visits=300, follow=shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


class TwoArms:
    """A world of two items of which the second is better, and of users of one kind."""

    def __init__(self) -> None:
        self._of = GlmWorld(seed=0, actions=2)
        self.spec, self.items = self._of.spec, self._of.items

    def visits(self, count: int, *, pace: float = 1.0) -> Scene:
        scene = self._of.visits(count, pace=pace)
        return scene._replace(p_click=np.tile([0.1, 0.6], count))


def test_the_oracle_and_the_mean_by_hand_and_greedy_finds_the_better_arm() -> None:
    result = live(TwoArms(), "random", visits=2_000)
    assert result.oracle_clicks == pytest.approx(0.6 * 2_000)
    assert result.random_clicks == pytest.approx(0.35 * 2_000)
    best = live(TwoArms(), "greedy", visits=2_000)
    assert best.clicks > 0.55 * 2_000
