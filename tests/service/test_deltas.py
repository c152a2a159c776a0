"""A version and what changed since give the next version, bit for bit, or nothing."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.types import Array
from service import deltas
from service.errors import CheckpointError

ROWS, WIDTH = 6, 2
TABLE = "embedding.item_2"
Weights = dict[str, Array]

#: Of one step: the rows that it moves, and the items that it counts.
steps = st.tuples(
    st.lists(st.integers(0, ROWS - 1), max_size=4), st.lists(st.sampled_from([0, 1, 7, 2**63, 2**64 - 1]), max_size=4)
)


def weights_of(numbers: np.random.Generator, counts: dict[int, int]) -> Weights:
    items = sorted(counts.items())
    return {
        TABLE: numbers.standard_normal((ROWS, WIDTH)).astype(np.float32),
        "mlp.0.bias": numbers.standard_normal(3).astype(np.float32),
        "mlp.out.bias": np.array(numbers.standard_normal(), dtype=np.float32),
        "items.hash": np.array([one for one, _ in items], dtype=np.uint64),
        "items.impressions": np.array([count for _, count in items], dtype=np.int64),
    }


def bits(weights: Weights) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {name: (str(one.dtype), one.shape, one.tobytes()) for name, one in weights.items()}


@given(st.lists(steps, max_size=8))
def test_base_and_deltas_are_the_full_weights(moves: list[tuple[list[int], list[int]]]) -> None:
    numbers, counts = np.random.default_rng(0), {3: 1}
    full = weights_of(numbers, counts)
    kept = full
    for rows, items in moves:
        for one in items:
            counts[one] = counts.get(one, 0) + 1
        fresh = weights_of(numbers, counts)
        moved = np.unique(np.array(rows, dtype=np.int32))
        table = full[TABLE].copy()
        table[moved] = fresh[TABLE][moved]
        full = fresh | {TABLE: table}
        shown = {one: counts[one] for one in items}
        before = bits(kept)
        delta = deltas.difference(full | items_of(shown), {TABLE: moved})
        older, kept = kept, deltas.apply(kept, delta)
        assert bits(kept) == bits(full)
        assert bits(older) == before  # who still ranks with it must not notice
        assert (kept[TABLE] is older[TABLE]) == (not rows)


def items_of(counts: dict[int, int]) -> Weights:
    weights = weights_of(np.random.default_rng(0), counts)
    return {name: weights[name] for name in ("items.hash", "items.impressions")}


def test_a_delta_is_as_large_as_what_moved() -> None:
    weights = weights_of(np.random.default_rng(0), {}) | {TABLE: np.zeros((1_000_000, 8), dtype=np.float32)}
    delta = deltas.difference(weights, {TABLE: np.arange(100, dtype=np.int32)})
    assert sum(one.nbytes for one in delta.values()) == 100 * (4 + 8 * 4) + 3 * 4 + 4


def rows_of(*rows: int) -> Callable[[Weights], None]:
    def change(delta: Weights) -> None:
        delta[f"rows/{TABLE}"] = np.array(rows, dtype=np.int32)
        delta[f"values/{TABLE}"] = np.zeros((len(rows), WIDTH), dtype=np.float32)

    return change


def given_as(name: str, array: Array) -> Callable[[Weights], None]:
    return lambda delta: delta.update({name: array})


def without(name: str) -> Callable[[Weights], None]:
    return lambda delta: delta.__delitem__(name)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (rows_of(2, 1), "ascending"),
        (rows_of(1, 1), "ascending"),
        (rows_of(-1, 1), "outside"),
        (rows_of(1, ROWS), "outside"),
        (given_as(f"rows/{TABLE}", np.array([1], dtype=np.int64)), "int64"),
        (given_as(f"rows/{TABLE}", np.array([[1]], dtype=np.int32)), "shape|not int32"),
        (given_as(f"values/{TABLE}", np.zeros((1, WIDTH + 1), dtype=np.float32)), f"values/{TABLE}"),
        (given_as(f"values/{TABLE}", np.zeros((1, WIDTH), dtype=np.float64)), "float64"),
        (given_as("mlp.0.bias", np.zeros(4, dtype=np.float32)), "mlp.0.bias"),
        (given_as("items.hash", np.array([9, 5], dtype=np.uint64)), "items.impressions"),
        (given_as("items.hash", np.array([5], dtype=np.int64)), "items.hash"),
        (given_as("another", np.zeros(1)), "another"),
        (without(f"values/{TABLE}"), "missing"),
        (without("mlp.out.bias"), "missing"),
        (without("items.hash"), "missing"),
    ],
)
def test_what_does_not_fit_is_refused(change: Callable[[Weights], None], fault: str) -> None:
    base = weights_of(np.random.default_rng(0), {3: 1})
    delta = deltas.difference(base | items_of({5: 1}), {TABLE: np.array([1], dtype=np.int32)})
    assert bits(deltas.apply(base, delta)) == bits(base | items_of({3: 1, 5: 1}))
    change(delta)
    with pytest.raises(CheckpointError, match=fault) as caught:
        deltas.apply(base, delta)
    assert caught.value.code == "delta_mismatch"


def test_items_must_ascend() -> None:
    base = weights_of(np.random.default_rng(0), {3: 1})
    delta = deltas.difference(base | items_of({5: 1, 9: 1}), {TABLE: np.array([], dtype=np.int32)})
    delta["items.hash"] = delta["items.hash"][::-1]
    with pytest.raises(CheckpointError, match="ascending"):
        deltas.apply(base, delta)
