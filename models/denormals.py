"""Denormal numbers: those too small for a float to have its digits, which processors take their time over."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def without_denormals() -> Iterator[None]:
    """Lets numbers below 1e-38 be zero, in this thread: arithmetic on them takes up to ten times as long.

    The moments of rows that are long unread get there and stay; so do the gradients of examples of which the model is
    all too sure.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
