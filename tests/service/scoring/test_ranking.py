"""One request against one version: order, exploration, propensity."""

import asyncio
from collections import Counter
from dataclasses import replace

import msgspec
import numpy as np
import pytest

from models.noise import seed_of
from models.types import Array, Batch, Scores
from service.checkpoints import ITEM_HASH, ITEM_IMPRESSIONS
from service.errors import Internal, Invalid
from service.scoring.engines import SeededNoise
from service.scoring.ranking import Loaded, Ranking, Terms, encode_rows, rank
from service.scoring.schemas import Candidate, Context, RankRequest, User

SAMPLES = 50  # of the strategy "sampled"
IDS = [f"item-{number}" for number in range(8)]


def request(ids: list[str] = IDS, bids: dict[str, float] | None = None) -> RankRequest:
    return RankRequest(
        user=User(id="u", features={"country": "de"}),
        context=Context(features={"hour": 20}),
        candidates=[Candidate(id=one, features={"topics": [one]}, bid=(bids or {}).get(one)) for one in ids],
    )


def ranked(loaded: Loaded, asked: RankRequest, strategy: str, *, seed: int = 1, top_k: int = 100) -> Ranking:
    terms = Terms("r", strategy, None, seed, top_k)
    return asyncio.run(rank(loaded, encode_rows(loaded, asked), terms, check=lambda: None))


@pytest.mark.parametrize("strategy", ["greedy", "random", "epsilon_greedy", "age_ts", "age_ucb", "sampled", "coherent"])
def test_every_strategy_repeats_itself(loaded: Loaded, strategy: str) -> None:
    first, again = (ranked(loaded, request(), strategy, seed=5) for _ in range(2))
    np.testing.assert_array_equal(first.slate.order, again.slate.order)
    np.testing.assert_array_equal(first.scores.score, again.scores.score)
    assert sorted(first.slate.order) == list(range(len(IDS)))


def test_a_candidate_s_score_does_not_depend_on_its_place(loaded: Loaded) -> None:
    forwards, backwards = (ranked(loaded, request(ids), "sampled") for ids in (IDS, IDS[::-1]))
    np.testing.assert_allclose(forwards.scores.score, backwards.scores.score[::-1], rtol=1e-5)
    assert [IDS[place] for place in forwards.slate.order] == [IDS[::-1][place] for place in backwards.slate.order]


def test_greedy_orders_by_p_click_and_random_does_not(loaded: Loaded) -> None:
    greedy = ranked(loaded, request(), "greedy")
    assert np.all(np.diff(greedy.scores.p_click[greedy.slate.order]) <= 0)
    assert not greedy.slate.explored.any()
    orders = {tuple(ranked(loaded, request(), "random", seed=seed).slate.order) for seed in range(20)}
    assert len(orders) == 20


def test_a_bid_orders_by_expected_revenue(loaded: Loaded) -> None:
    last = IDS[ranked(loaded, request(), "greedy").slate.order[-1]]
    with_bid = ranked(loaded, request(bids={last: 1e6}), "greedy")
    assert IDS[with_bid.slate.order[0]] == last
    assert not with_bid.slate.explored.any()  # greedy knows the bid, too
    assert with_bid.scores.score.max() < 1.0  # the probability stays one


def test_top_k_shows_the_best(loaded: Loaded) -> None:
    whole, best = ranked(loaded, request(), "age_ts"), ranked(loaded, request(), "age_ts", top_k=3)
    np.testing.assert_array_equal(best.slate.order, whole.slate.order[:3])
    assert len(best.scores.score) == len(IDS)


def test_impressions_are_those_of_the_version(loaded: Loaded) -> None:
    rows = encode_rows(loaded, request(["unseen", "seen", "other"]))
    np.testing.assert_array_equal(rows.impressions, [0, 4_000, 1])
    none = {name: one[:0] for name, one in zip((ITEM_HASH, ITEM_IMPRESSIONS), loaded.content.items, strict=True)}
    fresh = replace(loaded, content=replace(loaded.content, weights={**loaded.content.weights, **none}))
    np.testing.assert_array_equal(encode_rows(fresh, request(["seen", "a"])).impressions, [0, 0])


def test_a_feature_that_does_not_fit_is_named(loaded: Loaded) -> None:
    wrong = RankRequest(candidates=[Candidate(id="a"), Candidate(id="b", features={"topic": "x"})])
    with pytest.raises(Invalid) as caught:
        encode_rows(loaded, wrong)
    assert (caught.value.code, caught.value.path) == ("unknown_feature", "candidates[1].features.topic")


def test_an_unknown_strategy_is_told_the_known_ones(loaded: Loaded) -> None:
    known = "age_ts, age_ucb, coherent, epsilon_greedy, greedy, item_posterior, random, sampled"
    with pytest.raises(Invalid, match=known) as caught:
        loaded.strategy("bandit")
    assert caught.value.code == "unknown_strategy"


@pytest.mark.parametrize("strategy", ["random", "epsilon_greedy"])
def test_a_closed_form_is_how_often_an_item_is_shown(loaded: Loaded, strategy: str) -> None:
    """Of the requests that show it, the mean propensity is the share of all requests that show it."""
    asked, seeds = request(IDS[:4]), range(400)
    rankings = [ranked(loaded, asked, strategy, seed=seed_of(str(seed)), top_k=1) for seed in seeds]
    assert {one.propensity_method for one in rankings} == {"exact"}
    for place, count in Counter(int(one.slate.order[0]) for one in rankings).items():
        mean = np.mean([one.propensity[0] for one in rankings if one.slate.order[0] == place])
        assert mean == pytest.approx(count / len(seeds), abs=0.08)  # 3 standard errors


def test_an_estimate_is_how_often_an_item_is_shown(loaded: Loaded) -> None:
    ranking = ranked(loaded, request(IDS[:4]), "sampled", top_k=2)
    assert ranking.propensity_method == "monte_carlo"
    plain = without_propensity(loaded)
    others = [ranked(plain, request(IDS[:4]), "sampled", seed=seed_of(str(one)), top_k=2) for one in range(200)]
    for place, propensity in zip(ranking.slate.order, ranking.propensity, strict=True):
        share = np.mean([place in one.slate.order for one in others])
        assert 0.0 < share < 1.0
        assert propensity == pytest.approx(share, abs=0.2)  # 3 standard errors of both
        assert propensity * SAMPLES == pytest.approx(round(propensity * SAMPLES))
        assert propensity >= 1 / SAMPLES


def without_propensity(loaded: Loaded) -> Loaded:
    one = msgspec.structs.replace(loaded.manifest.strategies["sampled"], propensity_samples=0)
    strategies = loaded.manifest.strategies | {"sampled": one}
    manifest = msgspec.structs.replace(loaded.manifest, strategies=strategies)
    return replace(loaded, content=replace(loaded.content, manifest=manifest))


def test_what_is_shown_always_is_certain(loaded: Loaded) -> None:
    ranking = ranked(loaded, request(), "sampled", top_k=len(IDS))
    np.testing.assert_array_equal(ranking.propensity, np.ones(len(IDS)))


@pytest.mark.parametrize("strategy", ["greedy", "age_ts", "coherent"])
def test_no_propensity_is_claimed_where_there_is_none(loaded: Loaded, strategy: str) -> None:
    """Deterministic, not asked for, or with masks that do not depend on the request."""
    ranking = ranked(loaded, request(), strategy)
    assert (ranking.propensity, ranking.propensity_method) == (None, None)


class NoNumber:
    """An engine whose network has overflowed."""

    batches = False

    async def submit(
        self, strategy: str, batch: Batch, noise: SeededNoise, lambda_: float, impressions: Array
    ) -> Scores:
        return Scores(*(np.full(len(impressions), np.nan, dtype=np.float32) for _ in Scores._fields))


def test_a_score_that_is_no_number_is_a_fault_and_not_an_order(loaded: Loaded) -> None:
    with pytest.raises(Internal, match="greedy"):
        ranked(replace(loaded, engine=NoNumber()), request(), "greedy")
