"""A network's weights as `age/age.c` reads them. Field for field the structures are those of the C file, and so are
their comments.
"""

import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, addressof, c_char, c_float, c_int32, c_void_p

import numpy as np

from models.spec import FeatureSpec, Layout
from models.types import Array
from service.errors import CheckpointError

LAYERS = 8


class _Field(Structure):
    _fields_ = [
        ("table", c_void_p),
        *((name, c_int32) for name in ("rows", "width", "slot", "slots", "weighted")),
    ]


class _Side(Structure):
    _fields_ = [("fields", POINTER(_Field)), *((name, c_int32) for name in ("count", "slots", "width"))]


class Network(Structure):
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


class Packer:
    """Makes the structure of a network, and holds the arrays that it points to.

    Args:
        lanes: floats of a vector, the unit of every size.
        panel: columns of a panel; the last one of a matrix has those that are left.
    """

    def __init__(self, weights: Mapping[str, Array], lanes: int, panel: int) -> None:
        self._weights, self._lanes, self._panel = weights, lanes, panel
        self._kept: list[object] = []

    def network(self, spec: FeatureSpec, hidden: tuple[int, ...]) -> Network:
        one, take = Network(), self._take
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

    def _gate(self, one: Network, width: int) -> None:
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
        return address(array)


def _zeros(shape: tuple[int, ...]) -> Array:
    """float32, at the start of a cache line, as vectors are read."""
    size = 4 * math.prod(shape)
    raw = np.zeros(size + 64, dtype=np.uint8)
    start = -address(raw) % 64
    return raw[start : start + size].view(np.float32).reshape(shape)


def address(array: Array) -> int:
    """Of its first element, in C order."""
    if array.flags.writeable and array.size:  # a fifth of the time, and there are seven of them
        return addressof(c_char.from_buffer(array.data))
    return int(array.__array_interface__["data"][0])
