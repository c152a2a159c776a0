"""The compiled kernel `age/age.c` as Python calls it: its structures, and a network's weights packed for it.

Field for field the structures are those of the C file; their comments are there.
"""

import ctypes
import math
import zlib
from collections.abc import Mapping, Sequence
from ctypes import POINTER, Structure, addressof, byref, c_char, c_float, c_int32, c_int64, c_uint32, c_void_p
from functools import cache
from pathlib import Path

import numpy as np

from models.spec import FeatureSpec, Layout
from models.types import Array, Batch, Scores
from service.errors import CheckpointError

SOURCE = Path(__file__).with_name("age")
LIBRARY = SOURCE.with_name("_age.so")
LAYERS = 8

_NO_MEMORY = 1
_SIDES = {2: "context", 3: "item"}


class _Field(Structure):
    _fields_ = [
        ("table", c_void_p),
        *((name, c_int32) for name in ("rows", "width", "slot", "slots", "weighted")),
    ]


class _Side(Structure):
    _fields_ = [("fields", POINTER(_Field)), *((name, c_int32) for name in ("count", "slots", "width"))]


class _Network(Structure):
    _fields_ = [
        ("context", _Side),
        ("item", _Side),
        ("layers", c_int32),
        ("gate_units", c_int32),
        ("units", c_int32 * LAYERS),
        ("padded", c_int32 * LAYERS),
        *((name, c_int32) for name in ("context_padded", "item_padded", "width_padded")),
        *((name, c_void_p) for name in ("first_context", "first_item", "gram", "down", "up")),
        *((name, c_void_p * LAYERS) for name in ("forward", "backward", "bias")),
        *((name, c_void_p) for name in ("out", "gate", "gate_bias", "gate_out")),
        ("out_bias", c_float),
        ("gate_out_bias", c_float),
    ]


class Method(Structure):
    """`models.exploration.age.Age` in numbers."""

    _fields_ = [
        *((name, c_int32) for name in ("ucb", "last_layer", "own_masks", "pgd", "projected", "steps", "gate")),
        ("threshold", c_float),
        ("max_impressions", c_int64),
    ]


class _Request(Structure):
    _fields_ = [
        *((name, c_void_p) for name in ("context_index", "item_index", "context_weight", "item_weight")),
        *((name, c_void_p) for name in ("masks", "impressions", "scores")),
        ("lambda_", c_float),
        *((name, c_int32) for name in ("rows", "draws", "mask_rows", "mask_units")),
    ]


def library() -> ctypes.CDLL:
    """Raises OSError: it was not compiled, or for another machine, or from another source than the one here."""
    return _opened(LIBRARY)


@cache
def _opened(path: Path) -> ctypes.CDLL:
    opened = ctypes.CDLL(str(path))
    # Structures that differ would be read beyond their ends.
    if not hasattr(opened, "age_source") or c_uint32.in_dll(opened, "age_source").value != _checksum():
        raise OSError(f"{path}: compiled from another source")
    return opened


def _checksum() -> int:
    """As `hatch_build.py` computes it."""
    return zlib.crc32(b"".join(one.read_bytes() for one in sorted(SOURCE.glob("*.[ch]"))))


class Kernel:
    """One version's weights, packed. Immutable; any number of threads may ask it for scores.

    Args:
        hidden: units of the hidden layers.
        weights: parameter -> float32 array, prepared; the embedding tables are read where they are.
        path: instruction set, see `age_best`; None for the best that this machine has.

    Raises:
        CheckpointError: shape_mismatch.
        OSError: see `library`.
        ValueError: a path that this machine has not.
    """

    def __init__(
        self, spec: FeatureSpec, hidden: Sequence[int], weights: Mapping[str, Array], *, path: int | None = None
    ) -> None:
        self._age_scores, best = library().age_scores, library().age_best()
        self._path = best if path is None else path
        if not 0 <= self._path <= best:
            raise ValueError(f"path {path} is not one of the {best + 1} of this machine")
        if not 1 <= len(hidden) <= LAYERS:
            raise CheckpointError("shape_mismatch", f"the native engine runs 1 to {LAYERS} layers, not {len(hidden)}")
        self._spec, self._hidden = spec, tuple(hidden)
        lanes, wide = 4 << self._path, library().age_wide(self._path)
        self._packer = _Packer(weights, lanes, lanes * wide)  # keeps what the network points to
        self._network = self._packer.network(spec, self._hidden)

    def scores(self, method: Method, batch: Batch, masks: Array, lambda_: float, impressions: Array) -> Scores:
        """See `service.scoring.engines.Engine`.

        Raises:
            IndexError: an index that its table has no row for.
            ValueError: an array that does not fit the others.
        """
        rows, context, item = len(batch.item_index), self._spec.context.slots, self._spec.item.slots
        units = self._hidden[-1] if method.last_layer else sum(self._hidden)
        draws, mask_rows = len(masks), rows if method.own_masks else 1
        given = (
            _array(batch.context_index, np.int32, (1, context)),
            _array(batch.item_index, np.int32, (rows, item)),
            _array(batch.context_weight, np.float32, (1, context)),
            _array(batch.item_weight, np.float32, (rows, item)),
            _array(masks, np.float32, (draws, mask_rows, units)),
            _array(impressions, np.int64, (rows,)),
            np.empty((len(Scores._fields), rows), dtype=np.float32),
        )
        request = _Request(*map(_address, given), lambda_, rows, draws, mask_rows, units)
        code = self._age_scores(self._path, byref(self._network), byref(method), byref(request))
        if code == _NO_MEMORY:
            raise MemoryError(f"no memory for the scores of {rows} candidates")
        if code:
            raise IndexError(f"an index on the {_SIDES[code]} side has no row in its table")
        return Scores(*given[-1])


class _Packer:
    """Makes the structure of a network, and holds the arrays that it points to.

    Args:
        lanes: floats of a vector, the unit of every size.
        panel: columns of a panel; the last one of a matrix has those that are left.
    """

    def __init__(self, weights: Mapping[str, Array], lanes: int, panel: int) -> None:
        self._weights, self._lanes, self._panel = weights, lanes, panel
        self._kept: list[object] = []

    def network(self, spec: FeatureSpec, hidden: tuple[int, ...]) -> _Network:
        one, take = _Network(), self._take
        one.context, one.item = self._side(spec.context), self._side(spec.item)
        one.layers, one.units[: len(hidden)] = len(hidden), hidden
        one.padded[: len(hidden)] = [self._up(units) for units in hidden]
        widths = (spec.context.width, spec.item.width)
        one.context_padded, one.item_padded, one.width_padded = map(self._up, (*widths, sum(widths)))
        context, item = (
            take(f"mlp.0.{side}", (hidden[0], width)) for side, width in zip(("context", "item"), widths, strict=True)
        )
        one.first_context, one.first_item = self._panels(context.T), self._panels(item.T)
        if "prepared.gram" in self._weights:
            one.gram = self._panels(take("prepared.gram", (hidden[0], hidden[0])))
        else:
            first = np.concatenate([context, item], axis=1)
            one.down, one.up = self._panels(first), self._panels(first.T)
        for layer, units in enumerate(hidden):
            one.bias[layer] = self._row(take(f"mlp.{layer}.bias", (units,)))
            if layer:
                weight = take(f"mlp.{layer}.weight", (units, hidden[layer - 1]))
                one.forward[layer], one.backward[layer] = self._panels(weight.T), self._panels(weight)
        one.out, one.out_bias = self._row(take("mlp.out.weight", hidden[-1:])), float(take("mlp.out.bias", ()))
        self._gate(one, spec.item.width)
        return one

    def _gate(self, one: _Network, width: int) -> None:
        units = len(self._weights.get("gate.0.bias", ()))
        one.gate_units = self._up(units)
        one.gate = self._panels(self._take("gate.0.weight", (units, width)).T)
        one.gate_bias = self._row(self._take("gate.0.bias", (units,)))
        one.gate_out = self._row(self._take("gate.out.weight", (units,)))
        one.gate_out_bias = float(self._take("gate.out.bias", ()))

    def _side(self, layout: Layout) -> _Side:
        columns = [(table, column) for table in layout.tables for column in table.columns]
        fields = (_Field * len(columns))()
        for field, (table, column) in zip(fields, columns, strict=True):
            rows = self._take(f"embedding.{table.name}", (table.rows, table.width))
            field.table = self._keep(np.ascontiguousarray(rows))
            field.rows, field.width = rows.shape
            field.slot, field.slots = column.start, column.field.slots
            field.weighted = column.field.kind != "categorical"
        self._kept.append(fields)
        return _Side(fields, len(columns), layout.slots, layout.width)

    def _take(self, name: str, shape: tuple[int, ...]) -> Array:
        """A parameter. Raises CheckpointError shape_mismatch."""
        array = self._weights.get(name)
        if array is None or array.shape != shape or array.dtype != np.float32:
            found = "nothing" if array is None else f"{array.dtype} {array.shape}"
            raise CheckpointError("shape_mismatch", f"{name} is {found}, not float32 {shape}")
        return array

    def _panels(self, matrix: Array) -> int:
        """(depth, width), both filled up with 0 -> its panels one after the other, each (depth, its columns)."""
        filled = _zeros(tuple(map(self._up, matrix.shape)))
        filled[: matrix.shape[0], : matrix.shape[1]] = matrix
        panels, end = _zeros((filled.size,)), 0
        for start in range(0, filled.shape[1], self._panel):
            part = filled[:, start : start + self._panel]
            panels[end : end + part.size] = part.ravel()
            end += part.size
        return self._keep(panels)

    def _row(self, vector: Array) -> int:
        row = _zeros((self._up(len(vector)),))
        row[: len(vector)] = vector
        return self._keep(row)

    def _up(self, size: int) -> int:
        return -(-size // self._lanes) * self._lanes

    def _keep(self, array: Array) -> int:
        self._kept.append(array)
        return _address(array)


def _zeros(shape: tuple[int, ...]) -> Array:
    """float32, at the start of a cache line, as vectors are read."""
    size = 4 * math.prod(shape)
    raw = np.zeros(size + 64, dtype=np.uint8)
    start = -_address(raw) % 64
    return raw[start : start + size].view(np.float32).reshape(shape)


def _array(array: Array, dtype: type, shape: tuple[int, ...]) -> Array:
    """As C reads it; a copy only where it is otherwise."""
    if array.shape != shape:
        raise ValueError(f"an array of shape {array.shape} where {shape} was expected")
    return np.ascontiguousarray(array, dtype=dtype)


def _address(array: Array) -> int:
    if array.flags.writeable and array.size:  # a fifth of the time, and there are seven of them
        return addressof(c_char.from_buffer(array.data))
    return int(array.__array_interface__["data"][0])
