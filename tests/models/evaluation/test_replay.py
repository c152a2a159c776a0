import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest

from models.budget import WINDOW
from models.evaluation.driver import Protocol
from models.evaluation.r6b import Event
from models.evaluation.replay import Result, replay
from models.evaluation.worlds.r6b import R6bWorld
from models.features import Encoder, item_hashes
from models.learner import Learner
from models.networks.click import ClickNetwork, NetworkConfig
from models.noise import combine, draw
from models.policy import Policy
from models.registry import build
from models.slate import choose
from models.spec import FeatureSpec, Field
from models.types import Batch

SPEC = FeatureSpec(
    (
        Field(name="features", side="user", kind="multi_hot", buckets=512, max_values=136, width=8),
        Field(name="id", side="item", kind="categorical", source="id", buckets=4096, width=8),
    )
)
STRATEGIES: dict[str, dict[str, Any]] = {
    "random": {},
    "greedy": {},
    "epsilon_greedy": {"epsilon": 0.2},
    "age_ts": {"method": "age", "rate": 0.1, "lambda": 100.0},
    "age_ucb": {"method": "age", "uncertainty": "ucb", "draws": 5, "rate": 0.1, "budget": 0.2},
    "age_candidate": {"method": "age", "mask_scope": "candidate", "rate": 0.1, "budget": 0.2},
    "age_version": {"method": "age", "mask_scope": "version", "rate": 0.1, "budget": 0.2},
}


def log(count: int, *, seed: int = 0, every_s: float = 0.05, pool: int = 8) -> Iterator[Event]:
    """Uniformly random display in a simulated world."""
    world, generator = (
        R6bWorld(seed=seed, pool=pool, lifetime_s=300.0, users=200, fade=0.0),
        np.random.default_rng(seed),
    )
    for number in range(count):
        visit = world.visit(number * every_s)
        displayed = int(generator.integers(len(visit.candidates)))
        click = int(visit.click([displayed], generator)[0])
        yield Event(int(number * every_s), displayed, click, tuple(visit.features), tuple(visit.candidates))


@pytest.fixture(scope="module")
def short_log() -> list[Event]:
    return list(log(3_000))


def learner(seed: int = 0, learning_rate: float = 0.01) -> Learner:
    network = ClickNetwork(SPEC, NetworkConfig(hidden=(16, 8), gate_hidden=8))
    return Learner(network, learning_rate=learning_rate, seed=seed)


def run(events: Iterable[Event], name: str, *, seed: int = 0, with_: Learner | None = None, **protocol: int) -> Result:
    return replay(
        events,
        strategy=build(name, {"method": name, **STRATEGIES[name]}),
        make=lambda _: with_ or learner(seed),
        seed=seed,
        protocol=Protocol(**{"warm_up": 500, "update_every": 200, **protocol}),
    )


class Recorder(Learner):
    """A learner that remembers what it was given."""

    def __init__(self) -> None:
        super().__init__(ClickNetwork(SPEC, NetworkConfig(hidden=(16, 8))), learning_rate=0.01, seed=0)
        self.batches: list[tuple[Batch, np.ndarray]] = []

    def learn(self, batch: Batch, label: np.ndarray) -> float:
        self.batches.append((batch, label))
        return super().learn(batch, label)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_expectations_are_those_of_the_log_and_the_rest_is_repeatable(name: str, short_log: list[Event]) -> None:
    first = run(short_log, name)
    judged = short_log[500:]
    assert first.events == len(judged)
    assert first.expected_random_matches == pytest.approx(sum(1 / len(one.candidates) for one in judged))
    assert first.expected_random_clicks == pytest.approx(sum(one.click / len(one.candidates) for one in judged))
    assert 0 <= first.clicks <= first.matched
    # Whatever is picked, a uniformly random display hits it once in |A|; 4 standard errors of a sum of coins.
    assert abs(first.matched - first.expected_random_matches) < 4 * np.sqrt(first.expected_random_matches)
    assert run(short_log, name) == first


@pytest.mark.parametrize("name", ["random", "age_ts"])
def test_another_seed_makes_other_choices(name: str, short_log: list[Event]) -> None:
    results = {dataclasses.astuple(run(short_log, name, seed=seed)) for seed in range(4)}
    assert len(results) > 1


def test_random_is_clicked_as_often_as_its_expectation() -> None:
    """Each click of the log is kept with probability 1 / |A|, whatever was learned: a sum of independent coins."""
    events = list(log(40_000))
    result = run(events, "random", warm_up=1_000, update_every=5_000)
    share = np.array([1 / len(one.candidates) for one in events[1_000:] if one.click])
    standard_error = np.sqrt(np.sum(share * (1 - share)))
    assert abs(result.clicks - result.expected_random_clicks) < 3 * standard_error
    assert result.expected_random_clicks == pytest.approx(share.sum())


def test_greedy_learns_what_is_clicked() -> None:
    """In a world where the best of eight is clicked about twice as often as the mean."""
    events = list(log(40_000))
    result = run(events, "greedy", warm_up=5_000, update_every=500)
    random_ctr = result.expected_random_clicks / result.expected_random_matches
    assert result.ctr is not None
    assert result.ctr > 1.2 * random_ctr


def test_the_warm_up_learns_every_display_in_order_and_then_only_what_matches(short_log: list[Event]) -> None:
    recorder = Recorder()
    result = run(short_log, "random", with_=recorder, batch_size=64)
    labels = np.concatenate([label for _, label in recorder.batches])
    assert len(labels) == 500 + result.matched
    np.testing.assert_array_equal(labels[:500], [event.click for event in short_log[:500]])
    assert labels[500:].sum() == result.clicks
    assert max(len(label) for _, label in recorder.batches) <= 64
    assert min(len(label) for _, label in recorder.batches) > 1

    rows = np.concatenate([batch.item_index for batch, _ in recorder.batches])[:500]
    expected = [
        Encoder(SPEC).batch([event.candidates[event.displayed]], [None]).item_index for event in short_log[:500]
    ]
    np.testing.assert_array_equal(rows, np.concatenate(expected))


def test_all_strategies_enter_the_evaluation_with_the_same_weights(short_log: list[Event]) -> None:
    learners = [learner() for _ in ("random", "greedy", "age_ts")]
    for one, name in zip(learners, ("random", "greedy", "age_ts"), strict=True):
        run(short_log[:500], name, with_=one)
    for one in learners[1:]:
        for name, weight in one.weights().items():
            np.testing.assert_array_equal(weight, learners[0].weights()[name])


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_visit_that_does_not_match_changes_nothing(name: str, short_log: list[Event]) -> None:
    """No candidate has the index -1, so no policy picks what was displayed."""
    one = learner()
    before = one.weights()
    unmatched = [event._replace(displayed=-1) for event in short_log[:600]]
    result = run(unmatched, name, with_=one, warm_up=0)
    assert (result.matched, result.clicks, result.ctr) == (0, 0, None)
    assert one.step == 0
    for key, weight in one.weights().items():
        np.testing.assert_array_equal(weight, before[key])


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_pick_of_a_visit_is_what_the_scorer_would_show(name: str, short_log: list[Event]) -> None:
    """Visits of many users and pools are scored at once: none may see another's rows, noise or ties."""
    options = {option: value for option, value in STRATEGIES[name].items() if option != "budget"}
    strategy, model = build(name, {"method": name, **options}), learner()
    policy = Policy(model.network, model.params, strategy)
    events = []
    for number, event in enumerate(short_log[::10]):
        ids, user = event.candidates, {"features": list(event.features)}
        batch, item_hash = Encoder(SPEC).batch(ids, [None] * len(ids), user=user), item_hashes(ids)
        seed = combine(np.zeros(1, dtype=np.uint64), np.uint64(number))
        version = int(combine(np.zeros(1, dtype=np.uint64), np.uint64(0))[0])
        noise = draw(policy.noise, request_seed=seed, version=version, item_hash=item_hash)
        scores = policy.scores(batch, noise, strategy.lambda_, np.zeros(len(ids)))
        slate = choose(scores, item_hash=item_hash, seed=int(seed[0]), top_k=1)
        events.append(event._replace(displayed=int(slate.order[0])))
    assert len({len(event.candidates) for event in events}) > 1
    assert len({event.features for event in events}) > 30
    result = replay(
        events, strategy=strategy, make=lambda _: model, seed=0, protocol=Protocol(warm_up=0, update_every=300)
    )
    assert result.matched == result.events == 300


@pytest.mark.parametrize("visits", [2_000, 6_000])
def test_a_budget_hears_of_the_kept_visits_alone(visits: int) -> None:
    """Lambda stands still until as many were kept as the controller looks at: the others have never been."""
    options, protocol = {"method": "age", "gate": "none", "rate": 0.1}, Protocol(warm_up=0, update_every=250)
    free, held = (
        replay(
            log(visits), strategy=build("age", {**options, **more}), make=lambda _: learner(), seed=0, protocol=protocol
        )
        for more in ({}, {"budget": 0.01})
    )
    assert (free == held) == (free.matched < WINDOW)


def test_a_log_inside_the_warm_up_leaves_nothing_to_judge(short_log: list[Event]) -> None:
    assert run(short_log[:400], "greedy") == Result()
    assert Result().ctr is None


def test_no_more_than_a_partition_is_held() -> None:
    """The real log does not fit into memory."""
    unlearned = 0

    class Counter(Recorder):
        def learn(self, batch: Batch, label: np.ndarray) -> float:
            nonlocal unlearned
            unlearned = 0
            return super().learn(batch, label)

    def counted() -> Iterator[Event]:
        nonlocal unlearned
        for event in log(1_200):
            unlearned += 1
            assert unlearned <= 200
            yield event

    assert run(counted(), "random", with_=Counter(), warm_up=600).events == 600
