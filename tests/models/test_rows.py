"""Rows of embedding tables, against numpy's own."""

import numpy as np
import pytest
import torch

from models.rows import added, distinct


@pytest.mark.parametrize("shape", [(0, 3), (1, 1), (7, 3), (50, 2)])
@pytest.mark.parametrize("table", [1, 2, 40])
def test_distinct_rows_and_their_sums(shape: tuple[int, int], table: int) -> None:
    rng = np.random.default_rng(0)
    index = rng.integers(0, table, shape).astype(np.int32)
    rows = distinct(index)
    np.testing.assert_array_equal(rows, np.unique(index))
    values = rng.normal(size=(index.size, 4)).astype(np.float32)
    expected = np.zeros((table, 4), dtype=np.float32)
    np.add.at(expected, index.ravel(), values)  # one after the other, as they come
    found, sums = added(torch.from_numpy(index.ravel()).long(), torch.from_numpy(values))
    np.testing.assert_array_equal(found.numpy(), rows)
    np.testing.assert_array_equal(sums.numpy(), expected[rows])


@pytest.mark.parametrize("width", [1, 3, 8, 16, 33])
def test_rows_are_added_up_in_their_order(width: int) -> None:
    values = torch.tensor([1e8, -1e8, 1.0])[:, None].expand(3, width).contiguous()
    for order, total in (([0, 1, 2], 1.0), ([2, 1, 0], 0.0)):
        rows, sums = added(torch.tensor([3, 3, 3]), values[order])
        assert rows.tolist() == [3]
        assert sums.tolist() == [[total] * width]


def test_the_last_bit_is_that_of_one_addition_after_the_other() -> None:
    rng = np.random.default_rng(1)
    index = rng.zipf(1.3, 20_000) % 3_000  # a row of 7,000, and many of one
    index[:5] = 2**31 - 1  # the largest that a spec allows
    values = rng.normal(size=(len(index), 5)).astype(np.float32) * 10.0 ** rng.integers(-6, 6, (len(index), 1))
    rows, sums = added(torch.from_numpy(index), torch.from_numpy(values.astype(np.float32)))
    expected = np.zeros((len(rows), 5), dtype=np.float32)
    np.add.at(expected, np.searchsorted(rows.numpy(), index), values.astype(np.float32))
    np.testing.assert_array_equal(sums.numpy(), expected)
