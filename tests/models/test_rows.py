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
    read = torch.from_numpy(index.ravel()).long()
    sums = added(read, torch.from_numpy(values), torch.from_numpy(rows).long(), table)
    np.testing.assert_array_equal(sums.numpy(), expected[rows])
    everywhere = added(read, torch.from_numpy(values), torch.arange(table), table)
    np.testing.assert_array_equal(everywhere.numpy(), expected)  # zeros where nothing is read


def test_rows_are_added_up_in_their_order() -> None:
    values = torch.tensor([[1e8], [-1e8], [1.0]])
    for order, total in (([0, 1, 2], 1.0), ([2, 1, 0], 0.0)):
        assert added(torch.tensor([3, 3, 3]), values[order], torch.tensor([3]), 5).tolist() == [[total]]
