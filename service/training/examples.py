"""Examples: closed impressions as the encoded rows that were served, column by column. Nothing is encoded again."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from models.spec import FeatureSpec
from models.types import Array, Batch
from service.training.memory import UNCLICKED, Closed

_BY_WINDOW = 4  # columns of Examples that have W rows; the others have N


class Examples(NamedTuple):
    """N rows and their labels. Rows of one request whose windows closed together share a row of context, one of W."""

    served_ms: Array  # (W,) int64, the scorer's clock
    time_ms: Array  # (W,) int64, of the impressions, the log's clock like click_ms
    context_index: Array  # (W, Kc) int32
    context_weight: Array  # (W, Kc) float32
    window: Array  # (N,) int64, ascending from 0 without a gap: which of the W
    click_ms: Array  # (N,) int64, UNCLICKED where there was none
    item_index: Array  # (N, Ki) int32
    item_weight: Array  # (N, Ki) float32

    @property
    def rows(self) -> int:
        """N."""
        return len(self.window)

    @property
    def batch(self) -> Batch:
        """With C = W rows of context."""
        return Batch(self.context_index, self.context_weight, self.item_index, self.item_weight)

    @property
    def label(self) -> Array:
        """(N,) float32, 1 clicked."""
        return np.asarray(self.click_ms != UNCLICKED, dtype=np.float32)

    def split(self, rows: int) -> tuple["Examples", "Examples"]:
        """The first `rows` (at least 1) and the rest. A window that is cut is on both sides."""
        first = self.window[rows] if rows < self.rows else len(self.time_ms)  # of the windows that the rest needs
        by_window, by_row = self[:_BY_WINDOW], self[_BY_WINDOW:]
        last = self.window[rows - 1] + 1
        head = Examples(*(column[:last] for column in by_window), *(column[:rows] for column in by_row))
        rest = Examples(*(column[first:] for column in by_window), *(column[rows:] for column in by_row))
        return head, rest._replace(window=rest.window - first)


def examples(closed: Sequence[Closed], spec: FeatureSpec) -> Examples:
    """All rows of what has closed, in order."""
    index, weight = zip(*map(_items, closed), strict=True) if closed else ((), ())
    served = [one.served for one in closed]
    context = len(closed), spec.context.slots
    counts = [len(one.rows) for one in closed]
    item = sum(counts), spec.item.slots
    return Examples(
        np.array([one.time_ms for one in served], dtype=np.int64),
        np.array([one.time_ms for one in closed], dtype=np.int64),
        joined([one.context_index for one in served], np.int32, context),
        joined([one.context_weight for one in served], np.float32, context),
        np.repeat(np.arange(len(closed)), counts),
        np.array([click_ms for one in closed for click_ms in one.click_ms], dtype=np.int64),
        joined(index, np.int32, item),
        joined(weight, np.float32, item),
    )


def concatenate(first: Examples, second: Examples) -> Examples:
    """One after the other."""
    shifted = second._replace(window=second.window + len(first.time_ms))
    return Examples(*(np.concatenate(pair) for pair in zip(first, shifted, strict=True)))


def rearranged(given: Examples, windows: Array) -> Examples:
    """With its windows, each with its rows, in the order `windows` (W,) int64."""
    place = np.empty_like(windows)
    place[windows] = np.arange(len(windows))
    window = place[given.window]
    rows = np.argsort(window, kind="stable")
    by_window, by_row = given[:_BY_WINDOW], given._replace(window=window)[_BY_WINDOW:]
    # A quarter of the time of column[rows].
    return Examples(
        *(column.take(windows, axis=0) for column in by_window), *(column.take(rows, axis=0) for column in by_row)
    )


def joined(parts: Sequence[bytes], kind: type, shape: tuple[int, int]) -> Array:
    """Pieces of one array, one after the other."""
    content = bytearray().join(parts)  # torch wants memory that it could write to
    return np.frombuffer(content, dtype=kind).reshape(shape)


def _items(closed: Closed) -> tuple[bytes, bytes]:
    """Item rows and weights of what has closed, (len(rows), Ki) each."""
    served, rows = closed.served, closed.rows
    count = len(served.item_ids)
    if len(rows) == count:  # in order: a slate closes as a whole
        return served.item_index, served.item_weight
    width = len(served.item_index) // count
    cuts = [slice(row * width, (row + 1) * width) for row in rows]
    return b"".join(served.item_index[cut] for cut in cuts), b"".join(served.item_weight[cut] for cut in cuts)
