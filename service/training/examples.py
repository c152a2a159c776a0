"""Examples: closed impressions as the encoded rows that were served, and batches of them. Nothing is encoded again."""

import math
from collections.abc import Sequence

import msgspec
import numpy as np

from models.features import LARGEST_WEIGHT
from models.spec import FeatureSpec, Layout
from models.types import Array, Batch
from service.errors import EventError
from service.events import Served
from service.training.join import Closed


class Example(msgspec.Struct, array_like=True, frozen=True):
    """One row and its label."""

    served_ms: int  # scorer's clock
    time_ms: int  # of the impression, the log's clock like click_ms
    click_ms: int | None
    context_index: bytes  # (Kc,) int32
    context_weight: bytes  # (Kc,) float32
    item_index: bytes  # (Ki,) int32
    item_weight: bytes  # (Ki,) float32


def example(closed: Closed) -> Example:
    served, row = closed.served, closed.row
    width = len(served.item_index) // len(served.item_ids)
    cut = slice(row * width, (row + 1) * width)
    context = served.context_index, served.context_weight
    item = served.item_index[cut], served.item_weight[cut]
    return Example(served.time_ms, closed.time_ms, closed.click_ms, *context, *item)


def stack(examples: Sequence[Example], spec: FeatureSpec) -> tuple[Batch, Array]:
    """B examples -> (batch with C = B, (B,) float32 labels)."""

    def joined(parts: list[bytes], kind: type, layout: Layout) -> Array:
        content = bytearray().join(parts)  # torch wants memory that it could write to
        return np.frombuffer(content, dtype=kind).reshape(len(examples), layout.slots)

    batch = Batch(
        joined([one.context_index for one in examples], np.int32, spec.context),
        joined([one.context_weight for one in examples], np.float32, spec.context),
        joined([one.item_index for one in examples], np.int32, spec.item),
        joined([one.item_weight for one in examples], np.float32, spec.item),
    )
    return batch, np.array([one.click_ms is not None for one in examples], dtype=np.float32)


class Inspector:
    """Keeps out served records that would break a batch, a weight or a metric: the log may hold anything.

    Args:
        spec: what the records must have been encoded under.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self._hash = spec.hash
        self._context, self._item = _table_rows(spec.context), _table_rows(spec.item)

    def check(self, served: Served) -> None:
        """Raises EventError: spec_mismatch, unreadable_entry."""
        if served.spec_hash != self._hash:
            text = f"served under feature spec {served.spec_hash}, this trainer has {self._hash}"
            raise EventError("spec_mismatch", text)
        if not (_fit(*served.context(), self._context) and _fit(*served.items(), self._item)):
            raise EventError("unreadable_entry", "rows that the tables do not have, or weights that no encoder gives")
        if not all(0.0 <= one <= 1.0 for one in (*served.p_click, *served.score)):
            raise EventError("unreadable_entry", "p_click and score must lie in [0, 1]")
        if not 0.0 <= served.lambda_ < math.inf:
            raise EventError("unreadable_entry", "lambda must be finite and not negative")


def _table_rows(layout: Layout) -> Array:
    """(K,) int32: rows of the table that each slot looks into."""
    rows = [(table.rows, sum(column.field.slots for column in table.columns)) for table in layout.tables]
    return np.repeat(*np.array(rows, dtype=np.int32).reshape(-1, 2).T)


def _fit(index: Array, weight: Array, rows: Array) -> bool:
    """Whether (R, K) row numbers and weights suit a layout."""
    if index.shape[1:] != rows.shape or weight.shape != index.shape:
        return False
    return bool(((index >= 0) & (index < rows)).all() and (np.abs(weight) <= LARGEST_WEIGHT).all())
