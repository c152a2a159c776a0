"""What every world owes the loop."""

from collections.abc import Callable

import numpy as np
import pytest

from models.evaluation.worlds.ads import TENCENT_A, TENCENT_B, AdWorld
from models.evaluation.worlds.fitted import Fit, FittedWorld
from models.evaluation.worlds.glm import GlmWorld
from models.evaluation.worlds.r6b import R6bWorld
from models.evaluation.worlds.world import Scene, World, check_seeds
from models.features import Encoder, item_hashes


def fit(users: int = 30, items: int = 90) -> Fit:
    generator = np.random.default_rng(0)
    return Fit(
        user_share=generator.dirichlet(np.ones(users)),
        user_effect=generator.normal(0.0, 0.3, users),
        user_factor=generator.normal(0.0, 0.3, (users, 2)),
        user_codes=generator.integers(4, size=(users, 3)),
        item_effect=generator.normal(-3.0, 0.4, items),
        item_factor=generator.normal(0.0, 1.0, (items, 2)),
        item_codes=generator.integers(5, size=(items, 2)),
        item_group=np.arange(items) // 3,
        pool=np.array(12),
        visits_per_item=np.array(20.0),
    )


def nobody_known() -> Fit:
    """As of Upworthy: arms' rates and nothing else."""
    one = fit(users=1)
    return one._replace(user_codes=np.zeros((1, 0), dtype=np.int64), item_codes=np.zeros((90, 0), dtype=np.int64))


WORLDS: dict[str, Callable[[int], World]] = {
    "r6b": lambda seed: R6bWorld(seed=seed, interval_s=200.0),
    "glm": lambda seed: GlmWorld(seed=seed),
    "ads_a": lambda seed: AdWorld(seed=seed, shape=TENCENT_A, users=50),
    "ads_b": lambda seed: AdWorld(seed=seed, shape=TENCENT_B, users=50),
    "fitted": lambda seed: FittedWorld(fit(), seed=seed),
    "fitted, nobody known": lambda seed: FittedWorld(nobody_known(), seed=seed),
}


@pytest.fixture(params=WORLDS.values(), ids=WORLDS.keys())
def world(request: pytest.FixtureRequest) -> Callable[[int], World]:
    return request.param


def same(one: Scene, other: Scene) -> bool:
    pairs = zip((*one.visits, *one[1:]), (*other.visits, *other[1:]), strict=True)
    return all(np.array_equal(left, right) for left, right in pairs)


def test_a_scene_is_flat_visits_with_the_truth_of_every_candidate(world: Callable[[int], World]) -> None:
    here = world(3)
    scene = here.visits(50)
    visits = scene.visits
    assert visits.context_index.shape == visits.context_weight.shape == (50, here.spec.context.slots)
    assert len(visits.visit) == len(visits.item) == len(scene.p_click)
    np.testing.assert_array_equal(np.unique(visits.visit), np.arange(50))
    assert (np.diff(visits.visit) >= 0).all()
    assert 0 <= visits.item.min() <= visits.item.max() < len(here.items)
    assert len(here.items.index) == len(here.items.weight) == len(here.items.hash) == len(here.items)
    assert ((scene.p_click > 0) & (scene.p_click < 1)).all()
    assert ((scene.luck >= 0) & (scene.luck < 1)).all()
    for start, end in zip(visits.start, np.append(visits.start[1:], len(visits.item)), strict=True):
        assert len(set(visits.item[start:end].tolist())) == end - start >= 2


def test_one_seed_is_one_world_whatever_the_partitions(world: Callable[[int], World]) -> None:
    one, again, parts, other = world(5), world(5), world(5), world(6)
    first, second = one.visits(40), one.visits(40)
    assert same(first, again.visits(40))
    assert not same(first, other.visits(40))
    assert not same(first, second), "time goes on"
    sizes = (7, 33, 40)
    pieces = [parts.visits(size) for size in sizes]
    for number in (1, 2, 3):  # user, truth and luck
        whole = np.concatenate([first[number], second[number]])
        np.testing.assert_allclose(np.concatenate([piece[number] for piece in pieces]), whole, rtol=1e-12)


def test_the_pool_of_a_changing_world_turns_over_and_keeps_its_size() -> None:
    for make in (WORLDS["r6b"], WORLDS["fitted"]):
        world = make(1)
        scenes = [world.visits(100) for _ in range(20)]
        first, last = (set(one.visits.item.tolist()) for one in (scenes[0], scenes[-1]))
        assert not first & last
        sizes = [len(one.visits.item) / 100 for one in scenes]
        assert max(sizes) < 1.6 * min(sizes)


@pytest.mark.parametrize(("name", "low", "high"), [("ads_a", 250, 450), ("ads_b", 100, 200)])
def test_pools_of_ads_have_the_size_of_the_log(name: str, low: int, high: int) -> None:
    visits = WORLDS[name](2).visits(300).visits
    sizes = np.bincount(visits.visit)
    assert low * 0.8 < sizes.min()
    assert sizes.max() < high * 1.2
    assert len([field for field in WORLDS[name](2).spec.fields if field.side == "item"]) == 12
    assert len([field for field in WORLDS[name](2).spec.fields if field.side == "user"]) == 13


def test_ads_drift() -> None:
    """Without births and for the same user, only time moves a click probability."""
    world = AdWorld(seed=1, shape=TENCENT_B, users=1, period=1_000.0)
    early = world.visits(1)
    for _ in range(4):
        world.visits(100)
    late = world.visits(1)
    one, other = (dict(zip(scene.visits.item, scene.p_click, strict=True)) for scene in (early, late))
    both = sorted(one.keys() & other.keys())
    change = np.log([other[item] / one[item] for item in both])
    assert len(both) > 40
    assert np.abs(change).max() > 0.2


def test_a_glm_action_is_its_attributes() -> None:
    world = GlmWorld(seed=0, actions=200, values=2)
    scene = world.visits(1)
    by_row: dict[bytes, set[float]] = {}
    for row, p_click in zip(world.items.index, scene.p_click, strict=True):
        by_row.setdefault(row.tobytes(), set()).add(float(p_click))
    assert len(by_row) == 8
    assert all(len(values) == 1 for values in by_row.values())


def test_a_fitted_world_says_what_was_fitted() -> None:
    source = fit()
    world = FittedWorld(source, seed=4)
    scene = world.visits(200)
    real = world._order[scene.visits.item % len(source.item_effect)]
    user = scene.user[scene.visits.visit]
    logit = source.user_effect[user] + source.item_effect[real]
    logit = logit + (source.user_factor[user] * source.item_factor[real]).sum(axis=1)
    np.testing.assert_allclose(scene.p_click, 1.0 / (1.0 + np.exp(-logit)))
    encoder = Encoder(world.spec)
    index, _ = encoder.items(["item-7"], [{"item_0": int(source.item_codes[world._order[7], 0]), "item_1": 99}])
    assert world.items.hash[7] == item_hashes(["item-7"])[0]
    assert np.count_nonzero(world.items.index[7] != index[0]) <= 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"user_effect": np.zeros(3)}, "length"),
        ({"item_factor": np.zeros((90, 3))}, "rank"),
        ({"item_effect": np.full(90, np.nan)}, "finite"),
        ({"user_share": np.full(30, 0.5)}, "sum to 1"),
        ({"pool": np.array(1)}, "pool"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(wrong: dict[str, np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FittedWorld(fit()._replace(**wrong), seed=0)


def test_seeds_for_tuning_and_for_reports_are_never_mixed() -> None:
    check_seeds(range(100), tuning=True)
    check_seeds(range(100, 109), tuning=False)
    with pytest.raises(ValueError, match="for reports"):
        check_seeds(range(99, 101), tuning=True)
    with pytest.raises(ValueError, match="for tuning"):
        check_seeds(range(99, 101), tuning=False)


def test_at_a_slow_pace_time_hardly_passes() -> None:
    """The warm-up of a replay: its log is as many times denser as there are candidates."""
    fast, slow = WORLDS["fitted"](2), WORLDS["fitted"](2)
    for world, pace in ((fast, 1.0), (slow, 0.01)):
        first = set(world.visits(100, pace=pace).visits.item.tolist())
        last = set(world.visits(1_000, pace=pace).visits.item.tolist())
        assert (len(last - first) > 20) == (pace == 1.0)
