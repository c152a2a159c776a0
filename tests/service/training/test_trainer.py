"""The pure trainer: learns, and continues with the same bits."""

import dataclasses
from collections import Counter

import numpy as np
import pytest

from models.features import item_hashes
from models.learner import Learner
from models.metrics import log_loss, pcoc
from models.networks.click import ClickNetwork
from models.optimizers import OPTIMIZERS
from models.types import Batch
from service.checkpoints import ITEM_HASH, ITEM_IMPRESSIONS, Manifest
from service.events import Event, decode_served
from service.streams import Entry, StreamNames
from service.training.outcome import Outcome, Progress, Slice
from service.training.trainer import Trainer

NAMES = StreamNames("test", partitions=2)


def manifest_of(trainer: Trainer) -> Manifest:
    return Manifest(
        lane="default",
        version=trainer.learner.step,
        created_at_ms=0,
        data_timestamp_ms=trainer.data_timestamp_ms,
        spec="",
        spec_hash="",
        network={},
        strategies={},
        positions=dict(trainer.positions),
        metrics={},
        click_times_ms=[],
    )


def click(request_id: str, item_id: str, number: int = 0) -> Event:
    return Event(id=f"{request_id}-{item_id}-{number}", type="click", request_id=request_id, item_id=item_id)


def everything(trainer: Trainer, bits) -> tuple:
    """All that the future depends on."""
    return bits(trainer.weights()), bits(trainer.state()), trainer.positions, trainer.data_timestamp_ms


@pytest.fixture(scope="module")
def entries(world) -> list[Entry]:
    return world.entries(world.traffic(400), NAMES)


def test_it_learns_what_can_be_learned(world) -> None:
    outcome = world.trainer().feed(world.entries(world.traffic(700), NAMES))
    third = len(outcome.predictions) // 3
    early, late = outcome.predictions[:third], outcome.predictions[-third:]
    losses = [
        log_loss(np.concatenate([one.p for one in part]), np.concatenate([one.label for one in part]))
        for part in (early, late)
    ]
    assert losses[1] < 0.8 * losses[0]
    p, label = (np.concatenate([getattr(one, name) for one in late]) for name in ("p", "label"))
    assert 0.85 < pcoc(p, label) < 1.15


@pytest.mark.parametrize(("grid_ms", "max_pending"), [(1, 100_000), (50, 60)])
def test_how_entries_are_chunked_changes_nothing(world, bits, grid_ms: int, max_pending: int) -> None:
    """Not even where much comes in one millisecond, and pushes out what waits in several partitions."""
    traffic = [one._replace(time_ms=one.time_ms // grid_ms * grid_ms) for one in world.traffic(400)]
    entries = world.entries(traffic, NAMES)
    whole, single, random = (world.trainer(max_pending=max_pending) for _ in range(3))
    whole.feed(entries)
    for entry in entries:
        single.feed([entry])
    cuts = np.sort(np.random.default_rng(0).integers(len(entries), size=10))
    for chunk in np.split(np.arange(len(entries)), cuts):
        random.feed([entries[place] for place in chunk])
    assert whole.learner.step > 20
    assert everything(whole, bits) == everything(single, bits) == everything(random, bits)


@pytest.fixture(scope="module", params=OPTIMIZERS)
def never_stopped(request: pytest.FixtureRequest, world, entries: list[Entry]) -> tuple[str, Trainer]:
    """(its optimiser, a trainer that has learned it all)."""
    trainer = world.trainer(optimizer=request.param)
    trainer.feed(entries)
    return request.param, trainer


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5, 0.77, 0.999])
def test_a_restored_trainer_goes_on_with_the_same_bits(
    world, entries: list[Entry], bits, share: float, never_stopped: tuple[str, Trainer]
) -> None:
    cut = int(share * len(entries))
    optimizer, whole = never_stopped
    first, second = (world.trainer(optimizer=optimizer) for _ in range(2))
    first.feed(entries[:cut])
    second.restore(manifest_of(first), first.weights(), first.state())
    assert everything(second, bits) == everything(first, bits)
    second.feed(entries[cut:])
    assert everything(second, bits) == everything(whole, bits)
    assert {name: second.lambda_(name) for name in second.strategies} == {
        name: whole.lambda_(name) for name in whole.strategies
    }


def test_each_batch_is_predicted_before_it_is_learned(world) -> None:
    trainer = world.trainer()
    served = [world.served(f"r{number}", ("a", "bb", "c"), number % 8, time_ms=number) for number in range(50)]
    log = [world.entry(one, 10 + number) for number, one in enumerate(served)]
    clicks = [world.entry(click(f"r{number}", "bb"), 60 + number) for number in range(0, 50, 3)]
    end = world.entry(world.served("end"), 10 + 50 + world.window_ms)
    outcome = trainer.feed([*log, *clicks, end])
    rows = [(one, row) for one in served for row in range(3)][: 4 * world.batch_size]
    rows = rows[: len(rows) - len(rows) % world.batch_size]
    assert [len(one.p) for one in outcome.predictions] == [world.batch_size] * (len(rows) // world.batch_size)

    learner = Learner(ClickNetwork(world.spec, world.network), learning_rate=0.01, seed=7)
    for number, found in enumerate(outcome.predictions):
        part = rows[number * world.batch_size : (number + 1) * world.batch_size]
        batch = Batch(
            np.concatenate([one.context()[0] for one, _ in part]),
            np.concatenate([one.context()[1] for one, _ in part]),
            np.stack([one.items()[0][row] for one, row in part]),
            np.stack([one.items()[1][row] for one, row in part]),
        )
        label = np.array([row == 1 and int(one.request_id[1:]) % 3 == 0 for one, row in part], dtype=np.float32)
        np.testing.assert_allclose(found.p, learner.predict(batch), rtol=1e-5)
        assert found.label.tolist() == label.tolist()
        assert found.time_ms.tolist() == [one.time_ms for one, _ in part]
        learner.learn(batch, label)
    weights = trainer.weights()
    for name, expected in learner.weights().items():  # summed in another order
        np.testing.assert_allclose(weights[name], expected, rtol=1e-3, atol=1e-5)
    learned = {one.request_id for one, _ in rows}
    times = [entry.time_ms for entry, number in zip(clicks, range(0, 50, 3), strict=True) if f"r{number}" in learned]
    assert outcome.click_times_ms == times
    assert trainer.data_timestamp_ms == max(times)


def test_sums_by_strategy_and_item_age(world) -> None:
    first = world.served("r1", ("a", "b"), p_click=[0.25, 0.5], score=[0.3, 0.6], impressions=[9, 10])
    second = world.served("r2", ("a",), p_click=[0.125], score=[0.2], impressions=[0], strategy="not ours")
    log = [world.entry(first, 1), world.entry(second, 2), world.entry(click("r1", "b"), 3)]
    outcome = world.trainer().feed([*log, world.entry(world.served("end"), 10_000)])
    assert outcome.slices == {
        ("greedy", "new"): Slice(1, 0, 0.25, 0.3),
        ("greedy", "mature"): Slice(1, 1, 0.5, 0.6),
        ("other", "new"): Slice(1, 0, 0.125, 0.2),
    }


def test_impressions_are_counted_by_item(world, entries: list[Entry]) -> None:
    trainer = world.trainer()
    trainer.feed([*entries, world.entry(world.served("end"), 10**9)])
    records = {}
    for entry in entries:
        if entry.stream.endswith("served"):
            one = decode_served(entry.payload)
            records[one.request_id] = one
    expected = Counter(
        item for one in records.values() if one.lane == "default" for item in item_hashes(one.item_ids).tolist()
    )
    weights = trainer.weights()
    assert weights[ITEM_HASH].dtype == np.uint64
    assert np.array_equal(weights[ITEM_HASH], np.sort(weights[ITEM_HASH]))
    assert dict(zip(weights[ITEM_HASH].tolist(), weights[ITEM_IMPRESSIONS].tolist(), strict=True)) == expected


def test_a_budget_moves_lambda_and_counts_a_repeated_record_once(world) -> None:
    def lambda_after(copies: int, explored: bool) -> float:
        trainer = world.trainer()
        for number in range(130):
            one = world.served(f"r{number}", tuple("abcd"), strategy="age_ts", explored=[explored] * 4, lambda_=10.0)
            trainer.feed([world.entry(one, number)] * copies)
        assert trainer.lambda_("age_ucb") == 7.0
        return trainer.lambda_("age_ts")

    assert lambda_after(1, explored=False) > 10.0 > lambda_after(1, explored=True)
    assert lambda_after(1, explored=False) == lambda_after(2, explored=False)


def test_other_lanes_are_not_learned_from(world) -> None:
    trainer = world.trainer()
    other = world.served("r", ("a",), lane="another")
    end = world.entry(world.served("end", time_ms=10_000), 10_000)
    outcome = trainer.feed([world.entry(other, 1), world.entry(click("r", "a"), 2), end])
    assert (outcome.slices, outcome.dead_letters, outcome.join) == ({}, [], {"ignored": 1})


def test_feedback_of_any_time_can_be_saved(world) -> None:
    trainer = world.trainer()
    for number, time in enumerate(["0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59"]):
        event = f'{{"id":"e{number}","type":"click","request_id":"r","item_id":"a","time":"{time}"}}'
        trainer.feed([world.entry(event.encode(), 1 + number, "feedback")])
        world.trainer().restore(manifest_of(trainer), trainer.weights(), trainer.state())


def test_another_network_is_refused(world) -> None:
    first = world.trainer()
    second = world.trainer(network=dataclasses.replace(world.network, hidden=(8, 8, 8)))
    with pytest.raises(ValueError, match=r"mlp\.0\."):
        second.restore(manifest_of(first), first.weights(), first.state())


def test_progress_measures_the_run(world, entries: list[Entry]) -> None:
    trainer, progress = world.trainer(), Progress()
    assert progress.metrics() == {"examples": 0.0, "clicks": 0.0}
    outcomes = [trainer.feed(entries[:500]), trainer.feed(entries[500:])]
    for outcome in outcomes:
        progress.add(outcome)
    predictions = [one for outcome in outcomes for one in outcome.predictions]
    p, label = (np.concatenate([getattr(one, name) for one in predictions]) for name in ("p", "label"))
    assert progress.steps == trainer.learner.step == len(predictions)
    assert progress.metrics() == pytest.approx(
        {"examples": len(p), "clicks": label.sum(), "log_loss": log_loss(p, label), "pcoc": pcoc(p, label)}
    )
    assert len(progress.click_times_ms) == label.sum()


def test_nothing_comes_of_nothing(world) -> None:
    assert world.trainer().feed([]) == Outcome()
