"""The bytes of a request become the bytes of an answer: repeatable, counted, and honest about what went wrong."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from models.noise import seed_of
from service.connections import connect_async
from service.errors import Invalid, Unavailable
from service.scoring.experiments import Everyone, Traffic
from service.scoring.outbox import Outbox
from service.scoring.ranker import Ranker
from service.scoring.ranking import Loaded
from service.streams import StreamNames
from service.telemetry import STAGES, ScorerMetrics

Make = Callable[..., Ranker]


@pytest.fixture
async def make(loaded: Loaded, redis_url: str, names: StreamNames) -> AsyncIterator[Make]:
    """A ranker whose records nobody takes away."""
    client = connect_async(redis_url, name="test-ranker")

    def ranker(traffic: dict[str, float] | None = None, *, available: bool = True, capacity: int = 100) -> Ranker:
        metrics = ScorerMetrics(CollectorRegistry())
        outbox = Outbox(client, names, capacity=capacity, max_bytes=1_000_000, maxlen=1, metrics=metrics)
        outbox.available = available
        ranker = Ranker(
            lane="default",
            traffic=Traffic(traffic, salt="s") if traffic else Everyone("age_ts"),
            max_candidates=10,
            outbox=outbox,
            metrics=metrics,
        )
        ranker.loaded = loaded
        loaded.items.complete = True  # there are none
        return ranker

    yield ranker
    await client.aclose()


def ask(**changes: Any) -> bytes:
    candidates = [{"id": one, "features": {"topics": [one]}} for one in "abcde"]
    return json.dumps({"request_id": "r1", "candidates": candidates} | changes).encode()


async def test_the_same_request_gives_the_same_bytes(make: Make) -> None:
    body = ask(explain=True, strategy="sampled")
    first, again = [(await make().rank(body)).rpartition(b',"took_ms":') for _ in range(2)]
    assert first[0] == again[0]
    assert float(first[2].rstrip(b"}")) > 0.0


async def test_randomness_comes_from_the_request_id_or_the_seed(make: Make) -> None:
    async def order(**changes: Any) -> list[str]:
        return [item["id"] for item in json.loads(await make().rank(ask(strategy="random", **changes)))["items"]]

    assert len({tuple(await order(request_id=f"r{number}")) for number in range(10)}) > 5
    assert len({tuple(await order(request_id=f"r{number}", seed=1)) for number in range(10)}) == 1
    short = next(f"r{number}" for number in range(99) if seed_of(f"r{number}") < 2**63)
    assert await order(request_id=short) == await order(request_id="other", seed=seed_of(short))


async def test_a_request_without_an_id_gets_one(make: Make) -> None:
    ids = {json.loads(await make().rank(ask(request_id=None)))["request_id"] for _ in range(3)}
    assert len(ids) == 3


async def test_who_names_a_strategy_gets_it_and_is_in_no_experiment(make: Make) -> None:
    answer = json.loads(await make({"random": 1.0}).rank(ask(strategy="greedy", user={"id": "u"})))
    assert answer["strategy"] == "greedy"
    assert "experiment" not in answer


async def test_the_split_decides_by_user_and_without_one_by_request(make: Make) -> None:
    ranker = make({"random": 0.5, "greedy": 0.5})
    by_user = [
        json.loads(await ranker.rank(ask(request_id=f"r{n}", user={"id": "u"})))["experiment"] for n in range(20)
    ]
    assert len({one["bucket"] for one in by_user}) == 1
    without = [json.loads(await ranker.rank(ask(request_id=f"r{n}"))) for n in range(20)]
    assert {one["strategy"] for one in without} == {"random", "greedy"}
    assert all(one["experiment"]["strategy"] == one["strategy"] for one in without)


async def test_without_a_split_one_strategy_serves_all(make: Make) -> None:
    answer = json.loads(await make().rank(ask()))
    assert answer["strategy"] == "age_ts"
    assert "experiment" not in answer


async def test_without_a_version_it_says_what_to_do(make: Make) -> None:
    ranker = make()
    ranker.loaded = None
    with pytest.raises(Unavailable, match="start the trainer") as caught:
        await ranker.rank(ask())
    assert caught.value.code == "not_ready"


async def test_warnings(make: Make) -> None:
    assert "warnings" not in json.loads(await make().rank(ask()))
    assert json.loads(await make(available=False).rank(ask()))["warnings"] == ["log_unavailable"]
    assert json.loads(await make(capacity=0).rank(ask()))["warnings"] == ["served_record_dropped"]
    mixed = ask(candidates=[{"id": "a", "bid": 2.0}, {"id": "b"}])
    assert json.loads(await make().rank(mixed))["warnings"] == ["bid_missing"]
    all_bid = ask(candidates=[{"id": "a", "bid": 2.0}, {"id": "b", "bid": 0}])
    assert "warnings" not in json.loads(await make().rank(all_bid))


async def test_a_refused_request_leaves_no_record(make: Make) -> None:
    ranker = make()
    with pytest.raises(Invalid):
        await ranker.rank(ask(strategy="nope"))
    assert ranker._outbox._metrics.registry.get_sample_value("agerank_served_queue_entries") == 0.0


async def test_what_is_not_computed_behind_a_shut_gate_is_no_uncertainty(make: Make) -> None:
    ranker = make()
    items = json.loads(await ranker.rank(ask(strategy="age_ucb", explain=True)))["items"]
    told = [item["explain"]["uncertainty"] for item in items if item["explain"]["gate"]["open"]]
    assert 0 < len(told) < len(items)
    value = ranker._outbox._metrics.registry.get_sample_value
    assert value("agerank_uncertainty_count", {"strategy": "age_ucb"}) == len(told)
    assert value("agerank_uncertainty_sum", {"strategy": "age_ucb"}) == pytest.approx(sum(told), rel=1e-5)
    assert value("agerank_score_delta_count", {"strategy": "age_ucb"}) == len(items)


async def test_everything_is_counted(make: Make) -> None:
    ranker = make()
    answer = json.loads(await ranker.rank(ask(strategy="sampled", top_k=3)))
    value = ranker._outbox._metrics.registry.get_sample_value
    labels = {"lane": "default", "strategy": "sampled"}
    assert value("agerank_slots_total", labels) == 3
    changed = sum(item["explored"] for item in answer["items"])
    assert value("agerank_exploration_changed_slots_total", labels) == changed
    assert value("agerank_gate_total", {"strategy": "sampled", "open": "true"}) == 5
    assert value("agerank_gate_total", {"strategy": "sampled", "open": "false"}) == 0
    for histogram in ("agerank_uncertainty", "agerank_score_delta"):
        assert value(f"{histogram}_count", {"strategy": "sampled"}) == 3
    moved = sum(abs(item["score"] - item["p_click"]) for item in answer["items"])
    assert value("agerank_score_delta_sum", {"strategy": "sampled"}) == pytest.approx(moved, rel=1e-5)
    assert value("agerank_rank_candidates_sum") == 5
    for stage in STAGES:
        assert value("agerank_rank_stage_seconds_count", {"stage": stage}) == 1
    assert value("agerank_served_queue_entries") == 1
