"""Deltas: what changed from one version's weights to the next one's. numpy only, no I/O.

    rows/<name>                     (N,) int32, ascending: rows of an embedding table, or of what a belief keeps by
                                    row, that may have changed
    values/<name>                   (N, ...): what stands there now
    items.hash, items.impressions   (M,), (M,): the items whose counts changed, ascending, and these counts
    <anything else>                 the array, whole

Applied to the older weights they give the newer ones, bit for bit. What did not change is shared by both.
"""

from collections.abc import Mapping

import numpy as np

from models.types import Array
from service.checkpoints import ITEM_HASH, ITEM_IMPRESSIONS
from service.errors import CheckpointError

ROWS, VALUES = "rows/", "values/"


def difference(weights: Mapping[str, Array], rows: Mapping[str, Array]) -> dict[str, Array]:
    """A delta.

    Args:
        weights: the newer ones; of the items only those whose counts changed.
        rows: embedding table -> its rows that may have changed, (N,) int32, ascending.
    """
    delta = {name: array for name, array in weights.items() if name not in rows}
    for name, touched in rows.items():
        delta |= {ROWS + name: touched, VALUES + name: weights[name][touched]}
    return delta


def apply(base: Mapping[str, Array], delta: Mapping[str, Array]) -> dict[str, Array]:
    """The newer weights.

    Raises:
        CheckpointError: delta_mismatch.
    """
    left = dict(delta)
    weights = {}
    for name, array in base.items():
        if name in (ITEM_HASH, ITEM_IMPRESSIONS):
            continue
        if ROWS + name in left:
            weights[name] = _patched(name, array, left.pop(ROWS + name), _take(left, VALUES + name))
        else:
            weights[name] = _alike(name, _take(left, name), array.shape, array.dtype)
    items = base[ITEM_HASH], base[ITEM_IMPRESSIONS]
    weights[ITEM_HASH], weights[ITEM_IMPRESSIONS] = _merged(
        *items, _take(left, ITEM_HASH), _take(left, ITEM_IMPRESSIONS)
    )
    if left:
        raise _mismatch(f"{', '.join(sorted(left))}: unknown to the version that it rests on")
    return weights


def _patched(name: str, table: Array, rows: Array, values: Array) -> Array:
    """A copy of the table with other values in some rows; the table itself where there are none."""
    _alike(ROWS + name, rows, (len(rows),), np.dtype(np.int32))
    _alike(VALUES + name, values, (len(rows), *table.shape[1:]), table.dtype)
    if not len(rows):
        return table
    if not _ascends(rows) or rows[0] < 0 or rows[-1] >= len(table):
        raise _mismatch(f"{ROWS}{name}: not ascending, or outside of a table of {len(table)} rows")
    copy = table.copy()
    copy[rows] = values
    return copy


def _merged(item_hash: Array, count: Array, changed: Array, counts: Array) -> tuple[Array, Array]:
    """Impression counts, (N,) uint64 ascending and (N,) int64, with (M,) of them new or other than before."""
    _alike(ITEM_HASH, changed, (len(changed),), item_hash.dtype)
    _alike(ITEM_IMPRESSIONS, counts, (len(changed),), count.dtype)
    if not len(changed):
        return item_hash, count
    if not _ascends(changed):
        raise _mismatch(f"{ITEM_HASH}: not ascending")
    place = np.searchsorted(item_hash, changed)
    known = place < len(item_hash)
    known[known] = item_hash[place[known]] == changed[known]
    count = count.copy()
    count[place[known]] = counts[known]
    if known.all():
        return item_hash, count
    new = ~known
    return np.insert(item_hash, place[new], changed[new]), np.insert(count, place[new], counts[new])


def _take(left: dict[str, Array], name: str) -> Array:
    if name not in left:
        raise _mismatch(f"{name} is missing")
    return left.pop(name)


def _alike(name: str, array: Array, shape: tuple[int, ...], dtype: np.dtype[np.generic]) -> Array:
    if array.shape != shape or array.dtype != dtype:
        raise _mismatch(f"{name} is {array.dtype} {array.shape}, not {dtype} {shape}")
    return array


def _ascends(array: Array) -> bool:
    return bool((array[1:] > array[:-1]).all())


def _mismatch(detail: str) -> CheckpointError:
    return CheckpointError("delta_mismatch", detail)
