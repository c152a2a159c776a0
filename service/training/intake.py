"""Intake: entries become messages, and what is of no use is told apart. The log may hold anything."""

import math
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from models.columns import LARGEST_WEIGHT
from models.spec import FeatureSpec, Layout
from models.types import Array
from service.errors import EventError
from service.events import Event, Served, decode_event, decode_served
from service.streams import Entry
from service.training.examples import joined

#: Times are int64. Whoever sets an entry's id may set any uint64.
_LAST_MS = 2**63 - 1


class Useless(NamedTuple):
    """What no example comes of."""

    request_id: str | None = None  # of a served record: feedback on it is of no use either
    error: EventError | None = None  # unreadable_entry, schema_version, spec_mismatch; None: it is another lane's


class Intake:
    """Decodes, and keeps out served records that would break a batch, a weight or a metric.

    Args:
        spec: what served records must have been encoded under.
        lane: whose they must be.
    """

    def __init__(self, spec: FeatureSpec, lane: str) -> None:
        self._lane, self._hash = lane, spec.hash
        self._context, self._item = _table_rows(spec.context), _table_rows(spec.item)

    def read(self, entries: Sequence[Entry]) -> list[Served | Event | Useless]:
        """A message for each entry."""
        messages = [self._decode(entry) for entry in entries]
        served = [one for one in messages if isinstance(one, Served)]
        if self._fault(served) is None:  # at a fraction of the cost of looking at each
            return messages
        return [self._checked(one) if isinstance(one, Served) else one for one in messages]

    def _decode(self, entry: Entry) -> Served | Event | Useless:
        if entry.time_ms > _LAST_MS:
            return Useless(error=EventError("unreadable_entry", f"the id {entry.position} is beyond all times"))
        try:
            if not entry.stream.endswith(":served"):
                return decode_event(entry.payload)
            served = decode_served(entry.payload)
        except EventError as error:
            return Useless(error=error)
        return served if served.lane == self._lane else Useless(served.request_id)

    def _checked(self, served: Served) -> Served | Useless:
        error = self._fault([served])
        return Useless(served.request_id, error) if error else served

    def _fault(self, served: Sequence[Served]) -> EventError | None:
        """What is wrong with any of these: spec_mismatch, unreadable_entry."""
        for one in served:
            if one.spec_hash != self._hash:
                text = f"served under feature spec {one.spec_hash}, this trainer has {self._hash}"
                return EventError("spec_mismatch", text)
            if not 0.0 <= one.lambda_ < math.inf:
                return EventError("unreadable_entry", "lambda must be finite and not negative")
        contexts = [(one.context_index, one.context_weight, 1) for one in served]
        items = [(one.item_index, one.item_weight, len(one.item_ids)) for one in served]
        if not (_fit(contexts, self._context) and _fit(items, self._item)):
            return EventError("unreadable_entry", "rows that the tables do not have, or weights that no encoder gives")
        if not (_shares([one.p_click for one in served]) and _shares([one.score for one in served])):
            return EventError("unreadable_entry", "p_click and score must lie in [0, 1]")
        return None


def _table_rows(layout: Layout) -> Array:
    """(K,) uint32: rows of the table that each slot looks into."""
    rows = [(table.rows, sum(column.field.slots for column in table.columns)) for table in layout.tables]
    return np.repeat(*np.array(rows, dtype=np.uint32).reshape(-1, 2).T)


def _fit(sides: Sequence[tuple[bytes, bytes, int]], table_rows: Array) -> bool:
    """Whether (index, weight, R) suit a layout: each (R, K)."""
    slots = len(table_rows)
    if any(len(index) != 4 * rows * slots or len(weight) != len(index) for index, weight, rows in sides):
        return False
    shape = sum(rows for *_, rows in sides), slots
    index = joined([index for index, *_ in sides], np.uint32, shape)  # in which a negative number is a large one
    weight = joined([weight for _, weight, _ in sides], np.float32, shape)
    return bool((index < table_rows).all() and (np.abs(weight) <= LARGEST_WEIGHT).all())


def _shares(columns: Sequence[Sequence[float]]) -> bool:
    """Whether all lie in [0, 1]."""
    values = np.fromiter(chain.from_iterable(columns), dtype=np.float64)
    return bool(((values >= 0.0) & (values <= 1.0)).all())
