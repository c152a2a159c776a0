"""Values of one column of the feature spec, all rows at once, to table rows and weights. numpy only."""

import sys
from collections.abc import Sequence
from itertools import chain, repeat
from typing import Any, Final

import numpy as np
from xxhash import xxh3_64_digest

from models.spec import Column
from models.types import Array

#: Of a row, either way. Ours: a standardised number beyond it is an outlier or a wrong unit.
LARGEST_WEIGHT = 10.0

Values = Sequence[Any]  # (R,) of one column, None where there is none

#: How texts become rows of a column. The compiled kernel reads it as it lies there.
COLUMN = np.dtype([("seed", np.uint64), ("buckets", np.uint64), ("first", np.int32), ("slot", np.int32)])

_BIG_ENDIAN = np.dtype(">u8")  # as xxhash writes a digest


class Texts:
    """Hashes of texts, xxh3-64. All raise TypeError where one is no text, before anything is written."""

    def hashes(self, texts: Sequence[Sequence[str]], seeds: Array) -> Array:
        """R texts for each of C seeds, (C,) uint64 -> (C, R) uint64."""
        pairs = zip(texts, seeds.tolist(), strict=True)
        digests = (map(xxh3_64_digest, map(str.encode, some), repeat(seed)) for some, seed in pairs)
        hashes = np.frombuffer(b"".join(chain.from_iterable(digests)), _BIG_ENDIAN)
        return hashes.reshape(len(seeds), len(texts[0])).astype(np.uint64)

    def fill(self, texts: Sequence[Sequence[str]], columns: Array, index: Array) -> None:
        """R texts for each of C columns, (C,) COLUMN, become table rows in their slots of index, (R, K) int32."""
        buckets = self.hashes(texts, columns["seed"]) % columns["buckets"][:, None]
        index[:, columns["slot"]] = (buckets.astype(np.int32) + columns["first"][:, None]).T


class RefusedError(ValueError):
    """A value that does not fit its field; whoever knows where it stands says so."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


class Columns:
    """Columns that are filled together."""

    def __init__(self, columns: Sequence[Column], texts: Texts) -> None:
        self.columns: Final = columns
        self._texts = texts
        self._categorical = [number for number, one in enumerate(columns) if one.field.kind == "categorical"]
        self._others = [number for number, one in enumerate(columns) if one.field.kind != "categorical"]
        hashed = [columns[number] for number in self._categorical]
        self._hashed = np.array([(one.seed, one.field.buckets, one.offset + 1, one.start) for one in hashed], COLUMN)

    def fill(self, values: Sequence[Values], index: Array, weight: Array) -> None:
        """Writes the slots of all columns into index and weight, both (R, K), which hold those of missing values.

        Raises:
            RefusedError: there is a value that does not fit; `first_refusal` finds it.
        """
        if self._categorical:
            self._fill_categorical([values[number] for number in self._categorical], index)
        for number in self._others:
            column = self.columns[number]
            if column.field.kind == "numeric":
                _fill_numeric(column, values[number], index, weight)
            else:
                self._fill_multi_hot(column, values[number], index, weight)

    def first_refusal(self, values: Sequence[Values]) -> tuple[str, int, RefusedError]:
        """The first value that `fill` refuses, column by column: its field, its row, and why."""
        for column, given in zip(self.columns, values, strict=True):
            alone, slots = Columns([column], self._texts), column.start + column.field.slots
            index, weight = np.zeros((1, slots), np.int32), np.zeros((1, slots), np.float32)
            for row, value in enumerate(given):
                try:
                    alone.fill([[value]], index, weight)
                except RefusedError as error:
                    return column.field.name, row, error
        raise AssertionError("each value fits")

    def _fill_categorical(self, values: Sequence[Values], index: Array) -> None:
        """One 1-based bucket for each value; weights stay 1."""
        try:
            self._texts.fill(values, self._hashed, index)
        except TypeError:  # not all are texts
            texts = [["" if value is None else _text(value) for value in given] for given in values]
            self._texts.fill(texts, self._hashed, index)
            for column, given in zip(self._hashed, values, strict=True):
                missing = [row for row, value in enumerate(given) if value is None]
                index[missing, column["slot"]] = column["first"] - 1  # a field's own row 0

    def _fill_multi_hot(self, column: Column, values: Values, index: Array, weight: Array) -> None:
        """A bucket for each value of a bag, of equal weights."""
        field = column.field
        bags = [() if value is None else value for value in values]
        if not all(issubclass(kind, list | tuple) for kind in set(map(type, bags))):
            odd = next(value for value in bags if not isinstance(value, list | tuple))
            raise RefusedError("feature_type", f"expected a list of strings or integers, not {_kind(odd)}")
        size = np.fromiter(map(len, bags), np.int64, len(bags))
        if size.max() > field.max_values:
            raise RefusedError("feature_too_many_values", f"{size.max()} values, at most {field.max_values} allowed")
        texts = list(map(_text, chain.from_iterable(bags)))
        (hashes,) = self._texts.hashes([texts], np.array([column.seed], dtype=np.uint64))
        slots = slice(column.start, column.start + field.slots)
        taken = np.arange(field.slots) < size[:, None]  # (R, slots)
        index[:, slots][taken] = (hashes % np.uint64(field.buckets)).astype(np.int32) + (column.offset + 1)
        share = 1.0 / np.maximum(size, 1) if field.pooling == "mean" else np.ones(len(size))
        weight[:, slots][taken] = share.repeat(size)


def _text(value: object) -> str:
    """1 and "1" are the same value, true is "true"."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    raise RefusedError("feature_type", f"expected a string or an integer, not {_kind(value)}")


def _fill_numeric(column: Column, values: Values, index: Array, weight: Array) -> None:
    """One row, weighted by the standardised number."""
    given = np.fromiter((value is not None for value in values), np.bool_, len(values))
    numbers = _numbers([value for value in values if value is not None])
    with np.errstate(over="ignore"):  # clipped
        scaled = (numbers - column.field.mean) / column.field.std
    index[given, column.start] = column.offset + 1
    weight[given, column.start] = scaled.clip(-LARGEST_WEIGHT, LARGEST_WEIGHT)


def _numbers(values: Values) -> Array:
    for kind in set(map(type, values)):
        if kind is bool or not issubclass(kind, int | float):
            odd = next(value for value in values if type(value) is kind)
            raise RefusedError("feature_type", f"expected a number, not {_kind(odd)}")
    try:
        numbers = np.array(values, dtype=np.float64)
    except OverflowError:  # an integer beyond float64 is as little a feature as infinity
        numbers = np.array([np.inf])
    if not (np.abs(numbers) < sys.float_info.max).all():
        raise RefusedError("feature_not_finite", "expected a finite number")
    return numbers


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
