import math

import numpy as np
import pytest

from models.metrics import auc, log_loss, pcoc


def sample(rows: int = 500, *, levels: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(7)
    p = generator.beta(1.0, 8.0, rows)
    if levels:
        p = np.round(p * levels) / levels
    return p, (generator.random(rows) < p).astype(np.float32)


def test_log_loss_is_the_mean_of_minus_log_of_what_happened() -> None:
    p, y = sample()
    by_hand = [-math.log(a if b else 1.0 - a) for a, b in zip(p, y, strict=True)]
    assert log_loss(p, y) == pytest.approx(sum(by_hand) / len(by_hand))


def test_log_loss_of_a_sure_mistake_is_finite() -> None:
    assert 10.0 < log_loss(np.array([1.0, 0.0]), np.array([0.0, 1.0])) < 20.0


@pytest.mark.parametrize("levels", [None, 12])
def test_auc_equals_the_share_of_ordered_pairs(levels: int | None) -> None:
    p, y = sample(levels=levels)
    pairs = p[y == 1][:, None] - p[y == 0][None, :]
    assert auc(p, y) == pytest.approx(float(np.mean((pairs > 0) + 0.5 * (pairs == 0))))


def test_auc_of_perfect_inverted_and_constant_predictions() -> None:
    y = np.array([0, 0, 1, 1])
    assert auc(np.array([0.1, 0.2, 0.3, 0.4]), y) == 1.0
    assert auc(np.array([0.4, 0.3, 0.2, 0.1]), y) == 0.0
    assert auc(np.full(4, 0.3), y) == 0.5


def test_pcoc_is_predicted_over_seen_clicks() -> None:
    assert pcoc(np.array([0.2, 0.4, 0.6], dtype=np.float32), np.array([0, 0, 1])) == pytest.approx(1.2)


def test_pcoc_sums_in_double_precision() -> None:
    p = np.full(2**22, 0.1, dtype=np.float32)
    y = np.zeros(2**22, dtype=np.float32)
    y[0] = 1.0
    assert pcoc(p, y) == pytest.approx(2**22 * float(np.float32(0.1)), rel=1e-12)


@pytest.mark.parametrize("y", [np.zeros(3), np.zeros(0)], ids=["no clicks", "no rows"])
def test_what_has_no_clicks_is_undefined(y: np.ndarray) -> None:
    p = np.full(len(y), 0.1)
    assert math.isnan(pcoc(p, y))
    assert math.isnan(auc(p, y))


def test_what_has_no_rows_is_undefined() -> None:
    nothing = np.zeros(0)
    assert math.isnan(log_loss(nothing, nothing))


def test_all_clicked_leaves_auc_undefined() -> None:
    p, y = np.array([0.5, 0.6]), np.ones(2)
    assert math.isnan(auc(p, y))
    assert pcoc(p, y) == pytest.approx(0.55)
