"""What is refused: predictions far off, in the window and only there."""

import math

import numpy as np
import pytest

from service.training.guard import Bounds, Guard
from service.training.outcome import Predictions

BOUNDS = Bounds(window_examples=512, min_examples=512, pcoc_low=0.5, pcoc_high=2.0, normalised_entropy=1.1)
BATCH = 128


def batches(examples: int, p: float, rate: float) -> list[Predictions]:
    """Batches in which `p` is predicted where the click rate is `rate`."""
    clicks = np.zeros(BATCH, dtype=np.float32)
    clicks[: round(rate * BATCH)] = 1.0
    ones = np.ones(BATCH, dtype=np.float32)
    one = Predictions(np.zeros(BATCH, dtype=np.int64), p * ones, clicks, ones)
    return [one] * (examples // BATCH)


def judged(*parts: list[Predictions], bounds: Bounds = BOUNDS) -> str | None:
    guard = Guard(bounds)
    for part in parts:
        guard.observe(part)
    refusal = guard.judge()
    assert refusal is None or refusal.detail
    return refusal and refusal.code


@pytest.mark.parametrize(
    ("p", "rate", "code"),
    [
        (0.25, 0.25, None),
        (0.35, 0.25, None),  # off, within the bounds
        (0.6, 0.25, "pcoc"),
        (0.1, 0.25, "pcoc"),
        (0.25, 0.0, "pcoc"),  # nothing is clicked any more
        (0.0, 0.25, "pcoc"),
        (math.nan, 0.25, "pcoc"),
        (0.01, 0.0, None),  # five clicks short of nothing: chance
        (1.0, 1.0, None),
    ],
)
def test_a_prediction_far_off_is_refused(p: float, rate: float, code: str | None) -> None:
    assert judged(batches(1024, p, rate)) == code


def test_sure_and_wrong_is_refused_though_it_be_calibrated_on_the_whole() -> None:
    opposite = [one._replace(p=1.0 - one.label) for one in batches(1024, 0.0, 0.5)]
    assert judged(opposite) == "normalised_entropy"
    assert judged(batches(1024, 0.5, 0.5)) is None


def test_it_is_silent_until_it_has_seen_enough() -> None:
    assert judged(batches(384, 0.9, 0.1)) is None
    assert judged(batches(512, 0.9, 0.1)) == "pcoc"
    late = BOUNDS._replace(min_examples=2048)
    assert judged(batches(1536, 0.9, 0.1), batches(512, 0.2, 0.2), bounds=late) is None  # a bad beginning is forgotten
    assert judged(batches(2048, 0.9, 0.1), bounds=late) == "pcoc"


def test_only_the_window_counts() -> None:
    bad, good = batches(512, 0.9, 0.1), batches(512, 0.2, 0.2)
    assert judged(bad, good) is None
    assert judged(good, bad) == "pcoc"


def test_how_the_batches_come_changes_nothing() -> None:
    whole, pieces = Guard(BOUNDS), Guard(BOUNDS)
    parts = batches(512, 0.3, 0.2) + batches(384, 0.2, 0.1)
    whole.observe(parts)
    for one in parts:
        pieces.observe([one])
    assert {name: array.tobytes() for name, array in whole.state().items()} == {
        name: array.tobytes() for name, array in pieces.state().items()
    }


def test_it_goes_on_from_its_state() -> None:
    guard, again = Guard(BOUNDS), Guard(BOUNDS)
    guard.observe(batches(1024, 0.9, 0.1))
    assert guard.judge()
    again.restore(guard.state())
    assert again.judge() == guard.judge()
    assert (again.in_a_row, again.pcoc, again.normalised_entropy) == (2, guard.pcoc, guard.normalised_entropy)
    for one in (guard, again):
        one.observe(batches(512, 0.2, 0.2))
        assert one.judge() is None
        assert one.in_a_row == 0
