"""A ranking told to the caller and to the trainer: both can be checked against each other and recomputed."""

import asyncio
from collections.abc import Sequence

import numpy as np
import pytest

from models.features import item_hashes
from models.noise import draw
from models.types import Batch
from service import events
from service.events import Served
from service.scoring.answers import shown, to_response, to_served
from service.scoring.ranking import Loaded, Terms, encode_rows, rank
from service.scoring.schemas import Candidate, RankRequest, RankResponse

IDS = ("seen", "b", "c", "d", "e", "f")


def answered(
    loaded: Loaded, strategy: str, *, ids: Sequence[str] = IDS, bid: float | None = None, bucket: int | None = None
) -> tuple[RankResponse, Served]:
    candidates = [Candidate(id=one, features={"topics": [one]}, bid=bid) for one in ids]
    request = RankRequest(candidates=candidates)
    terms, rows = Terms("r", strategy, bucket, 2**64 - 1, 4, explain=True), encode_rows(loaded, request)
    ranking = asyncio.run(rank(loaded, rows, terms, check=lambda: None))
    told = shown(rows, ranking)
    response = to_response(loaded, terms, rows, ranking, told, warnings=[], took_ms=1.5)
    return response, to_served(loaded, terms, rows, ranking, told, time_ms=12)


@pytest.mark.parametrize("strategy", ["greedy", "random", "age_ts", "sampled"])
def test_the_record_says_what_the_answer_says(loaded: Loaded, strategy: str) -> None:
    response, sent = answered(loaded, strategy, bucket=3)
    served = events.decode_served(events.encode(sent))
    assert served == sent
    assert [item.id for item in response.items] == served.item_ids
    assert [item.rank for item in response.items] == [1, 2, 3, 4]
    assert [item.p_click for item in response.items] == served.p_click
    assert [item.score for item in response.items] == served.score
    assert [item.explored for item in response.items] == served.explored
    assert (response.experiment.bucket, served.bucket) == (3, 3)
    assert (served.version, served.lane, served.seed, served.time_ms) == (7, "default", 2**64 - 1, 12)


def test_a_record_is_no_larger_than_the_documents_say(loaded: Loaded) -> None:
    """Whatever ids and features a caller sends."""
    longest = [chr(0x1F600 + number) * events.MAX_ID_LENGTH for number in range(6)]
    _, served = answered(loaded, "sampled", ids=longest)
    (_, context), (shown, slots) = (index.shape for index, _ in (served.context(), served.items()))
    assert shown == 4
    assert 4_000 < len(events.encode(served)) <= shown * (8 * slots + 1_100) + 8 * context + 2_000


@pytest.mark.parametrize("strategy", ["age_ts", "age_ucb", "sampled"])
def test_a_logged_decision_can_be_recomputed(loaded: Loaded, strategy: str) -> None:
    """From nothing but the record and the version it names."""
    _, served = answered(loaded, strategy)
    batch = Batch(*served.context(), *served.items())
    noise = draw(
        loaded.manifest.strategies[strategy].noise,
        request_seed=np.array([served.seed], dtype=np.uint64),
        version=served.version,
        item_hash=item_hashes(served.item_ids),
    )
    scores = loaded.engine.scores(strategy, batch, noise, served.lambda_, np.array(served.impressions))
    np.testing.assert_allclose(scores.p_click, served.p_click, rtol=1e-6)
    np.testing.assert_allclose(scores.score, served.score, rtol=1e-6)


def test_a_bid_multiplies_what_orders_and_nothing_else(loaded: Loaded) -> None:
    plain, _ = answered(loaded, "age_ts")
    response, served = answered(loaded, "age_ts", bid=2.5)
    assert [item.id for item in response.items] == [item.id for item in plain.items]
    for item, score in zip(response.items, served.score, strict=True):
        assert item.score == pytest.approx(2.5 * score)
        assert item.explain.score == score  # a probability, as the trainer gets it


def test_the_explanation_adds_up(loaded: Loaded) -> None:
    response, served = answered(loaded, "sampled")
    lambda_ = loaded.manifest.strategies["sampled"].lambda_
    for item, impressions in zip(response.items, served.impressions, strict=True):
        why = item.explain
        assert why.delta == pytest.approx(why.score - why.p_click, abs=1e-7)
        assert why.gate.open  # this strategy has no gate
        assert why.step == pytest.approx(lambda_ * why.uncertainty, rel=1e-5)
        assert why.impressions == impressions == (4_000 if item.id == "seen" else 0)
        assert 1 <= why.rank_without_exploration <= 6
    assert any(item.explain.delta for item in response.items)
    assert [item.explored for item in response.items] != [False] * 4


def test_a_shut_gate_takes_no_step(loaded: Loaded) -> None:
    response, _ = answered(loaded, "age_ts")
    shut = [item.explain for item in response.items if not item.explain.gate.open]
    assert shut
    assert all((why.step, why.delta) == (0.0, 0.0) and why.p_click < why.gate.threshold for why in shut)


def test_propensity_says_how_it_was_found(loaded: Loaded) -> None:
    exact, sampled, none = (answered(loaded, name)[0] for name in ("random", "sampled", "greedy"))
    assert (exact.propensity_method, exact.items[0].propensity) == ("exact", pytest.approx(4 / 6))
    assert (sampled.propensity_method, sampled.propensity_samples) == ("monte_carlo", 50)
    for absent in (exact.propensity_samples, none.propensity_method, none.items[0].propensity, none.experiment):
        assert not absent
