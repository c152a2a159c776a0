"""What is left out of learning: the same for everybody, nothing that was clicked, and nothing that a figure misses."""

import msgspec
import numpy as np
import pytest

from models.metrics import pcoc
from service.checkpoints import ITEM_IMPRESSIONS
from service.streams import StreamNames
from service.training.memory import UNCLICKED, Closed, Order
from service.training.outcome import Progress
from service.training.sampling import Sampler

RATE = 0.25
Rows = set[tuple[str, int]]


@pytest.fixture(scope="module")
def closed(world) -> list[Closed]:
    """2,000 requests of three rows, one in five of which was clicked."""
    slate = world.served("", "abc")
    served = [msgspec.structs.replace(slate, request_id=f"r{number}") for number in range(2_000)]
    clicks = np.where(np.random.default_rng(0).random((2_000, 3)) < 0.2, 7, UNCLICKED).tolist()
    return [
        Closed(one, [0, 1, 2], click_ms, Order(9, number, 0, "s"))
        for number, (one, click_ms) in enumerate(zip(served, clicks, strict=True))
    ]


def rows(closed: list[Closed], *, clicked: bool) -> Rows:
    return {
        (one.served.request_id, row)
        for one in closed
        for row, click_ms in zip(one.rows, one.click_ms, strict=True)
        if (click_ms != UNCLICKED) == clicked
    }


def test_all_clicked_rows_stay_and_the_share_of_the_others(closed: list[Closed]) -> None:
    kept = Sampler(rate=RATE, seed=1).kept(closed)
    assert rows(kept, clicked=True) == rows(closed, clicked=True)
    found, of = rows(kept, clicked=False), rows(closed, clicked=False)
    assert found < of
    assert abs(len(found) - RATE * len(of)) < 5 * (RATE * (1 - RATE) * len(of)) ** 0.5
    assert all(one.rows for one in kept)
    assert [one.order for one in kept] == sorted(one.order for one in kept)
    assert Sampler(rate=1.0, seed=1).kept(closed) == closed


def test_a_row_s_lot_depends_on_nothing_else(closed: list[Closed]) -> None:
    sampler = Sampler(rate=RATE, seed=1)
    parts = [sampler.kept(closed[start : start + 7]) for start in range(0, 2_000, 7)]
    assert sampler.kept(closed) == [one for part in parts for one in part]
    alone = [one._replace(rows=[row], click_ms=[click]) for one in closed for row, click in zip(*one[1:3], strict=True)]
    assert rows(sampler.kept(alone), clicked=False) == rows(sampler.kept(closed), clicked=False)
    assert rows(Sampler(rate=RATE, seed=2).kept(closed), clicked=False) != rows(sampler.kept(closed), clicked=False)


def test_what_is_measured_on_the_sample_is_what_the_log_says(world) -> None:
    """Of the impressions every one counts, and the progressive figures are those of the log, but for chance."""
    log = world.entries(world.traffic(700), StreamNames("test", 2))
    progress = {}
    for rate in (1.0, RATE):
        trainer, progress[rate] = world.trainer(negative_rate=rate), Progress()
        outcome = trainer.feed(log)
        progress[rate].add(outcome)
        if rate == 1.0:
            impressions = trainer.weights()[ITEM_IMPRESSIONS]
    assert np.array_equal(trainer.weights()[ITEM_IMPRESSIONS], impressions)
    whole, sample = progress[1.0], progress[RATE]
    assert sample.examples < 0.6 * whole.examples
    assert sample.weight == pytest.approx(whole.weight, rel=0.1)
    assert sample.metrics()["log_loss"] == pytest.approx(whole.metrics()["log_loss"], rel=0.1)
    second_half = outcome.predictions[len(outcome.predictions) // 2 :]
    _, p, label, weight = (np.concatenate(columns) for columns in zip(*second_half, strict=True))
    assert pcoc(p, label, weight) == pytest.approx(1.0, abs=0.1)
    assert pcoc(p, label) < 0.7  # which is what a sample that is taken for the log would say


def test_a_restored_trainer_leaves_out_the_same(world, bits) -> None:
    log = world.entries(world.traffic(300), StreamNames("test", 2))
    whole, single = (world.trainer(negative_rate=RATE) for _ in range(2))
    whole.feed(log)
    for entry in log:
        single.feed([entry])
    assert whole.learner.step > 5
    assert bits(single.weights()) == bits(whole.weights())
    assert bits(single.state()) == bits(whole.state())
