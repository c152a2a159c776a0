import numpy as np
import pytest

from models.evaluation.worlds.r6b import FEATURES, R6bWorld, Visit


def visits(world: R6bWorld, count: int, *, every_s: float = 0.1) -> list[Visit]:
    return [world.visit(number * every_s) for number in range(count)]


@pytest.fixture(scope="module")
def hour() -> list[Visit]:
    """An hour of a world whose items live for about ten minutes, and do not fade."""
    return visits(R6bWorld(seed=3, lifetime_s=600.0, fade=0.0), 12_000, every_s=0.3)


def test_the_shape_is_that_of_r6b(hour: list[Visit]) -> None:
    sizes = [len(visit.candidates) for visit in hour]
    assert 36 < np.mean(sizes) < 40
    assert min(sizes) > 20
    for visit in hour[:200]:
        assert visit.features[0] == 1
        assert visit.features == sorted(set(visit.features))
        assert visit.features[-1] <= FEATURES == 136
        assert len(set(visit.candidates)) == len(visit.candidates) == len(visit.click_probability)
        assert visit.click_probability.dtype == np.float64
    known = [len(visit.features) for visit in hour if len(visit.features) > 1]
    assert 0.6 < len(known) / len(hour) < 0.8
    assert 15 < np.mean(known) < 25


@pytest.mark.parametrize("seed", range(5))
def test_random_display_is_clicked_at_the_ctr_and_the_best_at_twice_that(seed: int) -> None:
    world = visits(R6bWorld(seed=seed, lifetime_s=60.0), 3_000)
    random_ctr = np.mean([visit.random_ctr() for visit in world])
    assert random_ctr == pytest.approx(0.04, rel=0.1)
    assert np.mean([visit.oracle_ctr(1) for visit in world]) > 2.0 * random_ctr


def test_oracle_and_random_by_hand() -> None:
    visit = Visit("user-1", [1], ["a", "b", "c", "d"], np.array([0.1, 0.4, 0.2, 0.3]))
    assert visit.oracle_ctr(1) == 0.4
    assert visit.oracle_ctr(2) == pytest.approx(0.35)
    assert visit.oracle_ctr(9) == visit.random_ctr() == pytest.approx(0.25)


def test_clicks_fall_at_the_known_probability() -> None:
    visit = Visit("user-1", [1], ["a", "b", "c"], np.array([0.1, 0.9, 0.5]))
    generator = np.random.default_rng(0)
    clicks = np.array([visit.click([1, 0], generator) for _ in range(5_000)])
    assert clicks.shape == (5_000, 2)
    assert clicks.dtype == bool
    np.testing.assert_allclose(clicks.mean(axis=0), [0.9, 0.1], atol=0.02)
    assert visit.click([], generator).shape == (0,)


def test_users_are_sticky_and_come_back(hour: list[Visit]) -> None:
    known: dict[str, list[int]] = {}
    for visit in hour:
        assert known.setdefault(visit.user_id, visit.features) == visit.features
    assert 900 < len(known) <= 1_000


def test_items_are_born_and_die_and_keep_their_probability_for_a_user(hour: list[Visit]) -> None:
    first: dict[str, int] = {}
    last: dict[str, int] = {}
    seen: dict[tuple[str, str], float] = {}
    for number, visit in enumerate(hour):
        for item, probability in zip(visit.candidates, visit.click_probability, strict=True):
            first.setdefault(item, number)
            last[item] = number
            assert abs(seen.setdefault((visit.user_id, item), probability) - probability) < 1e-12
    assert 38 * 6 < len(first) < 38 * 8  # six lifetimes, and those alive at the start
    middle = [item for item in first if first[item] > 0 and last[item] < len(hour) - 1]
    life_s = np.array([0.3 * (last[item] - first[item] + 1) for item in middle])
    assert len(middle) > 100
    assert life_s.min() > 295.0
    assert life_s.max() < 905.0
    for item in middle:
        assert all(item in visit.candidates for visit in hour[first[item] : last[item] : 100])


def test_items_fade_in_a_line_from_their_birth_on() -> None:
    fading, still = (visits(R6bWorld(seed=2, lifetime_s=50.0, fade=fade), 3_000) for fade in (2.0, 0.0))
    lost: dict[str, list[float]] = {}
    for number, (one, other) in enumerate(zip(fading, still, strict=True)):
        assert one.candidates == other.candidates
        odds = [np.log(of.click_probability / (1.0 - of.click_probability)) for of in (one, other)]
        for item, value in zip(one.candidates, odds[1] - odds[0], strict=True):
            lost.setdefault(item, []).append(value)
            assert value == pytest.approx(lost[item][0] + 2.0 * 0.1 / 50.0 * (len(lost[item]) - 1), abs=1e-9), number
    newest = [values[0] for item, values in lost.items() if item not in fading[0].candidates]
    assert np.ptp(newest) <= 2.0 * 0.1001 / 50.0  # all are born equal, up to the time to the next visit


def test_turnover_follows_the_lifetime() -> None:
    slow = {item for visit in visits(R6bWorld(seed=0), 600) for item in visit.candidates}
    fast = {item for visit in visits(R6bWorld(seed=0, lifetime_s=30.0), 600) for item in visit.candidates}
    assert len(slow) < 45
    assert len(fast) > 100


def test_one_seed_is_one_world() -> None:
    one, same, other = (visits(R6bWorld(seed=seed, lifetime_s=60.0), 400) for seed in (5, 5, 6))
    for left, right in zip(one, same, strict=True):
        assert left[:3] == right[:3]
        np.testing.assert_array_equal(left.click_probability, right.click_probability)
    assert [visit.user_id for visit in one] != [visit.user_id for visit in other]
    assert not np.array_equal(one[0].click_probability, other[0].click_probability)


def test_a_later_first_look_finds_the_same_items() -> None:
    early, late = R6bWorld(seed=1, lifetime_s=10.0), R6bWorld(seed=1, lifetime_s=10.0)
    visits(early, 500, every_s=0.5)
    at_end = {visit.user_id: visit for visit in (early.visit(1_000.0) for _ in range(3_000))}
    visit = late.visit(1_000.0)
    twin = at_end[visit.user_id]
    assert twin.candidates == visit.candidates
    np.testing.assert_allclose(twin.click_probability, visit.click_probability, rtol=1e-12)


def test_taste_is_personal_only_where_the_user_is_known(hour: list[Visit]) -> None:
    logit = {
        (visit.user_id, item): float(np.log(p / (1.0 - p)))
        for visit in hour[:600]
        for item, p in zip(visit.candidates, visit.click_probability, strict=True)
    }
    anonymous = {visit.user_id for visit in hour if visit.features == [1]}
    item = hour[300].candidates[0]
    unknown = [value for (user, one), value in logit.items() if one == item and user in anonymous]
    known = [value for (user, one), value in logit.items() if one == item and user not in anonymous]
    assert len(unknown) > 50
    assert np.ptp(unknown) < 1e-12
    assert np.std(known) > 0.05
