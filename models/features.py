"""The one encoder of serving and training: raw field values to rows of the embedding tables. numpy only.

Every kind is a bag of weighted rows (see `models.spec`), so the network knows only one operation. Values are hashed
with xxh3-64 under the field's own seed: stable over processes, machines and versions.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xxhash

from models.spec import Column, FeatureSpec, Layout
from models.types import Array, Batch

Features = Mapping[str, Any]

_NUMBER_LIMIT = 10.0  # ours: a standardised number beyond it is an outlier or a wrong unit


class FeatureError(ValueError):
    """A value does not fit the spec.

    Args:
        code: stable, one of unknown_feature, feature_type, feature_not_finite, feature_too_many_values.
        path: where the value stands, e.g. "candidates[3].features.topic".
        message: what is wrong, for a person.
    """

    def __init__(self, code: str, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.code, self.path, self.message = code, path, message


def item_hashes(ids: Sequence[str]) -> Array:
    """(B,) uint64: the identity of items in noise, ties and impression counts."""
    return np.array([xxhash.xxh3_64_intdigest(one.encode()) for one in ids], dtype=np.uint64)


def encode_context(
    spec: FeatureSpec, *, user_id: str | None = None, user: Features | None = None, context: Features | None = None
) -> tuple[Array, Array]:
    """User and context features -> ((1, Kc) int32 rows, (1, Kc) float32 weights).

    Raises:
        FeatureError: an unknown feature, or a value that does not fit its field.
    """
    index, weight = _empty(spec.context, 1)
    sides = {"user": (user or {}, "user.features"), "context": (context or {}, "context.features")}
    for side, (features, path) in sides.items():
        columns = [column for column in _columns(spec.context) if column.field.side == side]
        _fill(columns, features, user_id, path, index[0], weight[0])
    return index, weight


def encode_items(spec: FeatureSpec, ids: Sequence[str], features: Sequence[Features | None]) -> tuple[Array, Array]:
    """B candidates -> ((B, Ki) int32 rows, (B, Ki) float32 weights). Raises FeatureError like `encode_context`."""
    index, weight = _empty(spec.item, len(ids))
    columns = list(_columns(spec.item))
    for row, (one, values) in enumerate(zip(ids, features, strict=True)):
        _fill(columns, values or {}, one, f"candidates[{row}].features", index[row], weight[row])
    return index, weight


def encode(
    spec: FeatureSpec,
    ids: Sequence[str],
    features: Sequence[Features | None],
    *,
    user_id: str | None = None,
    user: Features | None = None,
    context: Features | None = None,
) -> Batch:
    """One request: C = 1 row of context, B candidates."""
    rows = encode_context(spec, user_id=user_id, user=user, context=context)
    return Batch(*rows, *encode_items(spec, ids, features))


def _columns(layout: Layout) -> list[Column]:
    return [column for table in layout.tables for column in table.columns]


def _empty(layout: Layout, rows: int) -> tuple[Array, Array]:
    return np.zeros((rows, layout.slots), dtype=np.int32), np.zeros((rows, layout.slots), dtype=np.float32)


def _fill(
    columns: Sequence[Column], features: Features, entity: str | None, path: str, index: Array, weight: Array
) -> None:
    """Writes one row's slots of `columns` into index and weight, both (K,)."""
    used = 0
    for column in columns:
        field = column.field
        if field.source == "id":
            value: object = entity
        else:
            value = features.get(field.name)
            used += field.name in features
        rows, weights = _MISSING if value is None else _READERS[field.kind](column, value, f"{path}.{field.name}")
        for slot, (row, amount) in enumerate(zip(rows, weights, strict=True), column.start):
            index[slot], weight[slot] = column.offset + row, amount
    if used != len(features):
        known = {column.field.name for column in columns if column.field.source == "features"}
        unknown = min(set(features) - known)
        message = f"not in the feature spec; known are {sorted(known)}"
        raise FeatureError("unknown_feature", f"{path}.{unknown}", message)


Bag = tuple[Sequence[int], Sequence[float]]  # a field's rows and their weights

_MISSING: Bag = ([0], [1.0])


def _categorical(column: Column, value: object, path: str) -> Bag:
    return [_bucket(column, value, path)], [1.0]


def _multi_hot(column: Column, value: object, path: str) -> Bag:
    if not isinstance(value, list | tuple):
        raise FeatureError("feature_type", path, f"expected a list of strings or integers, not {_kind(value)}")
    most = column.field.max_values
    if len(value) > most:
        raise FeatureError("feature_too_many_values", path, f"{len(value)} values, at most {most} allowed")
    if not value:
        return _MISSING
    amount = 1.0 / len(value) if column.field.pooling == "mean" else 1.0
    return [_bucket(column, one, path) for one in value], [amount] * len(value)


def _numeric(column: Column, value: object, path: str) -> Bag:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise FeatureError("feature_type", path, f"expected a number, not {_kind(value)}")
    # An integer beyond float64 is as little a feature as infinity.
    number = float(value) if abs(value) < sys.float_info.max else math.inf
    if not math.isfinite(number):
        raise FeatureError("feature_not_finite", path, "expected a finite number")
    scaled = (number - column.field.mean) / column.field.std
    return [1], [min(max(scaled, -_NUMBER_LIMIT), _NUMBER_LIMIT)]


_READERS = {"categorical": _categorical, "multi_hot": _multi_hot, "numeric": _numeric}


def _bucket(column: Column, value: object, path: str) -> int:
    """1-based hash bucket; 1 and "1" are the same value, true is "true"."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int):
        text = str(value)
    else:
        raise FeatureError("feature_type", path, f"expected a string or an integer, not {_kind(value)}")
    return 1 + xxhash.xxh3_64_intdigest(text.encode(), column.seed) % column.field.buckets


def _kind(value: object) -> str:
    """A JSON type's name, for a person."""
    names = {"dict": "an object", "list": "a list", "str": "a string", "bool": "a boolean", "float": "a fraction"}
    return names.get(type(value).__name__, type(value).__name__)
