"""Scores against ridge regression with a dummy for each test, in float64."""

import numpy as np
import pytest

from scripts.upworthy_scores import Arms, design, foretold, words

TESTS, FEATURES, FOLDS = 41, 7, 3


def test_words_stand_alone_and_in_pairs() -> None:
    assert words("It's GOOD. It's") == [".", ". it's", "^ it's", "good", "good .", "it's", "it's $", "it's good"]


def test_words_are_read_that_20_tests_have() -> None:
    headlines = [f"{'often' if n < 40 else 'rarely'} n{n}" for n in range(59)] + ["often"]
    test = np.array([n // 2 for n in range(59)] + [3])
    arms = Arms(headlines, np.arange(60) % 2 == 0, test, np.zeros(60), np.zeros(60))
    x = design(arms)
    assert x.shape == (60, 3)  # "often", "^ often" and first arms; 10 tests have "rarely"
    np.testing.assert_array_equal(x[:, -1], arms.first)
    for column in x.T[:-1]:
        np.testing.assert_array_equal(column, [n < 40 or n == 59 for n in range(60)])


@pytest.fixture
def arms() -> Arms:
    rng = np.random.default_rng(4)
    test = rng.permutation(np.repeat(np.arange(TESTS), rng.integers(2, 6, TESTS)))
    impressions = rng.integers(500, 90_000, len(test)) * (test > 1)  # of the first two nothing is known
    clicks = rng.binomial(impressions, 0.01 + 0.001 * (test % 7))
    clicks[test == 2] = 0
    return Arms([""] * len(test), np.zeros(len(test), bool), test, impressions, clicks)


def test_the_ridge_is_that_of_a_regression_with_a_free_constant_for_each_test(arms: Arms) -> None:
    x = (np.random.default_rng(5).random((len(arms.test), FEATURES)) < 0.4).astype(np.float32)
    fold = arms.test % FOLDS
    found = foretold(x, arms, fold)
    for number in range(FOLDS):
        design_, target, weight = [], [], []
        for n in np.flatnonzero(fold != number):
            of_test = arms.test == arms.test[n]
            rate = arms.clicks[of_test].sum() / max(arms.impressions[of_test].sum(), 1)
            if arms.impressions[n] * rate > 0:
                design_.append([*x[n], *np.eye(TESTS)[arms.test[n]]])
                target.append(arms.clicks[n] / (arms.impressions[n] * rate) - 1.0)
                weight.append(arms.impressions[n] * rate)
        z, w = np.array(design_), np.array(weight)
        penalty = np.diag([3_000.0] * FEATURES + [1e-9] * TESTS)
        slope = np.linalg.solve(z.T @ (z * w[:, None]) + penalty, z.T @ (w * np.array(target)))[:FEATURES]
        for test in np.unique(arms.test[fold == number]):
            here = arms.test == test
            expected = x[here] @ slope
            np.testing.assert_allclose(found[here], expected - expected.mean(), atol=1e-5)
    assert np.abs(found).max() > 1e-3
