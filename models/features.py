"""The one encoder of serving and training: raw field values to rows of the embedding tables. numpy only.

Every kind is a bag of weighted rows (see `models.spec`), so the network knows only one operation. Values are hashed
with xxh3-64 under the field's own seed: stable over processes, machines and versions.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import xxhash

from models.spec import Column, FeatureSpec, Layout
from models.types import Array, Batch

Features = Mapping[str, Any]

#: Of a row, either way. Ours: a standardised number beyond it is an outlier or a wrong unit.
LARGEST_WEIGHT = 10.0


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
    sides = {"user": (user or {}, "user.features"), "context": (context or {}, "context.features")}
    index, weight = _empty(spec.context, 1)
    for side, (features, path) in sides.items():
        columns = [column for column in _columns(spec.context) if column.field.side == side]
        _fill(columns, [features], [user_id], _constant(path), index, weight)
    return index, weight


def encode_items(spec: FeatureSpec, ids: Sequence[str], features: Sequence[Features | None]) -> tuple[Array, Array]:
    """B candidates -> ((B, Ki) int32 rows, (B, Ki) float32 weights). Raises FeatureError like `encode_context`."""
    index, weight = _empty(spec.item, len(ids))
    rows = [given or {} for given in features]
    _fill(_columns(spec.item), rows, ids, lambda row: f"candidates[{row}].features", index, weight)
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


def _constant(path: str) -> Callable[[int], str]:
    return lambda _: path


def _columns(layout: Layout) -> list[Column]:
    return [column for table in layout.tables for column in table.columns]


def _empty(layout: Layout, rows: int) -> tuple[Array, Array]:
    return np.zeros((rows, layout.slots), dtype=np.int32), np.zeros((rows, layout.slots), dtype=np.float32)


def _fill(
    columns: Sequence[Column],
    rows: Sequence[Features],
    entities: Sequence[str | None],
    path: Callable[[int], str],
    index: Array,
    weight: Array,
) -> None:
    """Writes the slots of `columns`, column by column, into index and weight, both (R, K).

    Args:
        rows: the features of each row.
        entities: the id of each row, for fields that take it.
        path: of a row's features in the request, asked for only to complain.
    """
    known = {column.field.name for column in columns if column.field.source == "features"}
    for row, features in enumerate(rows):
        if not features.keys() <= known:
            unknown = min(features.keys() - known)
            message = f"not in the feature spec; known are {sorted(known)}"
            raise FeatureError("unknown_feature", f"{path(row)}.{unknown}", message)
    for column in columns:
        field = column.field
        values = entities if field.source == "id" else [features.get(field.name) for features in rows]
        slots = slice(column.start, column.start + field.slots)
        read = _READERS[field.kind]
        bags: list[Bag] = []
        try:
            for value in values:
                bags.append(_MISSING if value is None else read(column, value))
        except _RefusedError as error:
            raise FeatureError(error.code, f"{path(len(bags))}.{field.name}", error.message) from None
        if field.slots > 1:
            bags = [_padded(bag, field.slots) for bag in bags]
        index[:, slots] = [bag[0] for bag in bags]
        index[:, slots] += column.offset
        weight[:, slots] = [bag[1] for bag in bags]


Bag = tuple[list[int], list[float]]  # rows of a field's own, and their weights

_MISSING: Bag = ([0], [1.0])


class _RefusedError(ValueError):
    """A value that does not fit its field; whoever knows where it stands says so."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def _padded(bag: Bag, slots: int) -> Bag:
    empty = slots - len(bag[0])
    return bag[0] + [0] * empty, bag[1] + [0.0] * empty


def _categorical(column: Column, value: object) -> Bag:
    return [_bucket(column, value)], [1.0]


def _multi_hot(column: Column, value: object) -> Bag:
    if not isinstance(value, list | tuple):
        raise _RefusedError("feature_type", f"expected a list of strings or integers, not {_kind(value)}")
    most = column.field.max_values
    if len(value) > most:
        raise _RefusedError("feature_too_many_values", f"{len(value)} values, at most {most} allowed")
    if not value:
        return _MISSING
    amount = 1.0 / len(value) if column.field.pooling == "mean" else 1.0
    return [_bucket(column, one) for one in value], [amount] * len(value)


def _numeric(column: Column, value: object) -> Bag:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _RefusedError("feature_type", f"expected a number, not {_kind(value)}")
    # An integer beyond float64 is as little a feature as infinity.
    number = float(value) if abs(value) < sys.float_info.max else math.inf
    if not math.isfinite(number):
        raise _RefusedError("feature_not_finite", "expected a finite number")
    scaled = (number - column.field.mean) / column.field.std
    return [1], [min(max(scaled, -LARGEST_WEIGHT), LARGEST_WEIGHT)]


_READERS = {"categorical": _categorical, "multi_hot": _multi_hot, "numeric": _numeric}


def _bucket(column: Column, value: object) -> int:
    """1-based hash bucket; 1 and "1" are the same value, true is "true"."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int):
        text = str(value)
    else:
        raise _RefusedError("feature_type", f"expected a string or an integer, not {_kind(value)}")
    return 1 + xxhash.xxh3_64_intdigest(text.encode(), column.seed) % column.field.buckets


def _kind(value: object) -> str:
    """A JSON type's name, for a person."""
    return _KINDS.get(type(value).__name__, type(value).__name__)


_KINDS = {
    "NoneType": "null",
    "bool": "a boolean",
    "dict": "an object",
    "float": "a fraction",
    "list": "a list",
    "str": "a string",
}
