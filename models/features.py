"""The one encoder of serving and training: raw field values to rows of the embedding tables. numpy only.

Every kind is a bag of weighted rows (see `models.spec`), so the network knows only one operation. Values are hashed
with xxh3-64 under the field's own seed: stable over processes, machines and versions. The work is done column by
column. Each value is hashed anew: where a field has thousands of values, looking them up would take longer.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from msgspec.structs import astuple

from models.columns import Columns, RefusedError, Texts
from models.spec import FeatureSpec, Layout, Side
from models.types import Array, Batch

Features = Mapping[str, Any]  # field -> value
Row = msgspec.Struct  # the same as one of `Encoder.rows`

_NO_SEED = np.zeros(1, dtype=np.uint64)
_TEXTS = Texts()


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
    hashes: Array = _TEXTS.hashes([ids], _NO_SEED)[0]
    return hashes


class Rows(NamedTuple):
    """Of each side a struct with a slot for each feature, named as in the spec.

    JSON decoded into it is encoded sooner than a dictionary; it cannot hold an unknown feature.
    """

    user: type[Row]
    context: type[Row]
    item: type[Row]


class Encoder:
    """Encodes what its spec describes. Immutable, and made once a spec: the columns are prepared here.

    Args:
        texts: a way with texts that takes less time than the default and gives the same.

    Attributes:
        spec: the fields.
        rows: the structs that it takes in place of dictionaries.
    """

    def __init__(self, spec: FeatureSpec, texts: Texts = _TEXTS) -> None:
        self.spec: Final = spec
        self._texts = texts
        self._user = _Side(spec.context, "user", lambda _: "user.features", texts)
        self._context = _Side(spec.context, "context", lambda _: "context.features", texts)
        self._item = _Side(spec.item, "item", lambda place: f"candidates[{place}].features", texts)
        self._both = Columns([*self._user.columns, *self._context.columns], texts)
        self.rows: Final = Rows(self._user.row, self._context.row, self._item.row)
        self._missing_context, self._missing_item = _missing(spec.context), _missing(spec.item)

    def context(
        self, *, user_id: str | None = None, user: Features | Row | None = None, context: Features | Row | None = None
    ) -> tuple[Array, Array]:
        """User and context features -> ((1, Kc) int32 rows, (1, Kc) float32 weights).

        Raises:
            FeatureError: an unknown feature, or a value that does not fit its field.
        """
        index, weight = self._missing_context[0].copy(), self._missing_context[1].copy()
        self._user.fill_ids([user_id], index, weight)
        try:
            values = astuple(user) + astuple(context)  # type: ignore[arg-type]  # or else:
            self._both.fill([(value,) for value in values], index, weight)
        except (TypeError, RefusedError):  # a dictionary, or nothing; or one of the sides tells what is wrong
            self._user.fill_features([user], index, weight)
            self._context.fill_features([context], index, weight)
        return index, weight

    def items(self, ids: Sequence[str | None], features: Sequence[Features | Row | None]) -> tuple[Array, Array]:
        """B candidates -> ((B, Ki) int32 rows, (B, Ki) float32 weights). Raises FeatureError like `context`."""
        index, weight, _ = self.candidates(ids, features)
        return index, weight

    def candidates(
        self, ids: Sequence[str | None], features: Sequence[Features | Row | None]
    ) -> tuple[Array, Array, Sequence[int]]:
        """The same, and the places of candidates without any feature: there are none, or all are null."""
        index, weight = self._missing_item[0].repeat(len(ids), axis=0), self._missing_item[1].repeat(len(ids), axis=0)
        self._item.fill_ids(ids, index, weight)
        return index, weight, self._item.fill_features(features, index, weight)

    def item_hashes(self, ids: Sequence[str]) -> Array:
        """As the function of that name."""
        hashes: Array = self._texts.hashes([ids], _NO_SEED)[0]
        return hashes

    def batch(
        self,
        ids: Sequence[str],
        features: Sequence[Features | Row | None],
        *,
        user_id: str | None = None,
        user: Features | Row | None = None,
        context: Features | Row | None = None,
    ) -> Batch:
        """One request: C = 1 row of context, B candidates."""
        return Batch(*self.context(user_id=user_id, user=user, context=context), *self.items(ids, features))


def _missing(layout: Layout) -> tuple[Array, Array]:
    """(1, K) rows and weights of a row without any value: each field's own row 0, once."""
    index, weight = np.zeros((1, layout.slots), np.int32), np.zeros((1, layout.slots), np.float32)
    for column in layout.columns:
        index[:, column.start : column.start + column.field.slots] = column.offset
        weight[:, column.start] = 1.0
    return index, weight


class _Side:
    """One side's rows of features, and their way into its columns.

    Args:
        path: where the features of the row at a place stand in the request; asked for only to complain.

    Attributes:
        columns: of its features, in the order of `row`.
    """

    def __init__(self, layout: Layout, side: Side, path: Callable[[int], str], texts: Texts) -> None:
        columns = [column for column in layout.columns if column.field.side == side]
        self.columns = [column for column in columns if column.field.source == "features"]
        self._ids = Columns([column for column in columns if column.field.source == "id"], texts)
        self._features = Columns(self.columns, texts)
        self._path = path
        self._nothing = (None,) * len(self.columns)
        self._blank = {column.field.name: None for column in self.columns}
        slots = {f"feature_{number}": name for number, name in enumerate(self._blank)}  # a name may be no identifier
        self.row = msgspec.defstruct(
            "Row",
            [(slot, Any, None) for slot in slots],
            rename=slots,
            forbid_unknown_fields=True,
            frozen=True,
            gc=False,  # JSON holds no circles
        )

    def fill_ids(self, ids: Sequence[str | None], index: Array, weight: Array) -> None:
        """Writes the slots of the fields that are ids into index and weight, both (R, K), so far those of no values."""
        if self._ids.columns:
            self._fill(self._ids, [ids] * len(self._ids.columns), range(len(ids)), index, weight)

    def fill_features(self, features: Sequence[Features | Row | None], index: Array, weight: Array) -> Sequence[int]:
        """The same with the other fields. Returns the places of rows without any value."""
        try:
            rows = list(map(astuple, features))  # type: ignore[arg-type]  # or else:
        except TypeError:
            places = [place for place, one in enumerate(features) if one is not None]
            rows = [self._ordered(features[place], place) for place in places]
            part = index[places], weight[places]
            self._fill(self._features, list(zip(*rows, strict=True)), places, *part)
            index[places], weight[places] = part
            said = {place for place, row in zip(places, rows, strict=True) if row != self._nothing}
            return [place for place in range(len(features)) if place not in said]
        values = list(zip(*rows, strict=True))
        self._fill(self._features, values, range(len(rows)), index, weight)
        if values and None not in values[0]:  # as a rule
            return ()
        return [place for place, row in enumerate(rows) if row == self._nothing]

    def _ordered(self, features: Any, place: int) -> tuple[Any, ...]:
        """The values of one row in the order of the columns."""
        if isinstance(features, msgspec.Struct):
            return astuple(features)
        ordered = {**self._blank, **features}
        if len(ordered) > len(self._blank):
            unknown = next(name for name in features if name not in self._blank)
            message = f"not in the feature spec; known are {sorted(self._blank)}"
            raise FeatureError("unknown_feature", f"{self._path(place)}.{unknown}", message)
        return tuple(ordered.values())

    def _fill(
        self, columns: Columns, values: Sequence[Sequence[Any]], places: Sequence[int], index: Array, weight: Array
    ) -> None:
        if not values:  # no columns, or no rows
            return
        try:
            columns.fill(values, index, weight)
        except RefusedError:
            name, row, error = columns.first_refusal(values)
            raise FeatureError(error.code, f"{self._path(places[row])}.{name}", error.message) from None
