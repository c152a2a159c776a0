"""The traffic split: shares are kept, users stay."""

from collections import Counter

import pytest

from service.scoring.experiments import BUCKETS, Everyone, Traffic

USERS = [f"user-{number}" for number in range(20_000)]


def test_without_a_split_all_get_one_strategy_and_nobody_a_bucket() -> None:
    assert {Everyone("greedy").assign(user) for user in USERS[:100]} == {(None, "greedy")}


def test_shares_are_kept() -> None:
    traffic = Traffic({"greedy": 0.2, "age_ts": 0.5, "random": 0.3}, salt="s")
    counts = Counter(traffic.assign(user)[1] for user in USERS)
    for strategy, share in {"greedy": 0.2, "age_ts": 0.5, "random": 0.3}.items():
        assert counts[strategy] / len(USERS) == pytest.approx(share, abs=0.015)


def test_a_bucket_belongs_to_one_strategy_and_a_user_to_one_bucket() -> None:
    traffic = Traffic({"greedy": 1 / 3, "age_ts": 1 / 3, "random": 1 / 3}, salt="s")
    owner = dict(traffic.assign(user) for user in USERS)
    assert owner.keys() == set(range(BUCKETS))  # also the last one, whatever a third is in binary
    assert all(owner[traffic.assign(user)[0]] == traffic.assign(user)[1] for user in USERS[:1000])
    assert sorted(owner, key=owner.get) != sorted(owner)  # ranges, not one strategy for all
    assert [owner[bucket] for bucket in (0, 332, 333, 666, 667, 999)] == ["greedy"] * 2 + ["age_ts"] * 2 + [
        "random"
    ] * 2


def test_a_new_salt_deals_anew() -> None:
    shares = {"greedy": 0.5, "age_ts": 0.5}
    one, other = Traffic(shares, salt="one"), Traffic(shares, salt="other")
    moved = sum(one.assign(user)[1] != other.assign(user)[1] for user in USERS)
    assert moved / len(USERS) == pytest.approx(0.5, abs=0.03)


def test_a_growing_share_moves_nobody_out() -> None:
    """Ranges grow at their ends: who explores at 10 % still does at 20 %."""
    before = Traffic({"age_ts": 0.1, "greedy": 0.9}, salt="s")
    after = Traffic({"age_ts": 0.2, "greedy": 0.8}, salt="s")
    explorers = [user for user in USERS if before.assign(user)[1] == "age_ts"]
    assert {after.assign(user)[1] for user in explorers} == {"age_ts"}


def test_a_strategy_without_share_gets_nobody() -> None:
    traffic = Traffic({"greedy": 0.0, "age_ts": 1.0, "random": 0.0}, salt="s")
    assert {traffic.assign(user)[1] for user in USERS} == {"age_ts"}
