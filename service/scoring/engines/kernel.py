"""The compiled kernel `age/age.c` as Python calls it. Field for field the structures are those of the C file; their
comments are there.
"""

import ctypes
import zlib
from collections.abc import Mapping, Sequence
from ctypes import Structure, byref, c_double, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from models.noise import seed_of
from models.spec import FeatureSpec
from models.types import Array, Batch, NoiseInput, Scores
from service.errors import CheckpointError
from service.scoring.engines.packing import LAYERS, Packer, address

SOURCE = Path(__file__).with_name("age")
LIBRARY = SOURCE.with_name("_age.so")

_NO_MEMORY = 1
_SIDES = {2: "context", 3: "item"}


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
        self._packer = Packer(weights, lanes, lanes * wide)  # keeps what the network points to
        self._network = self._packer.network(spec, self._hidden)

    def scores(self, method: Method, batch: Batch, masks: Array, lambda_: float, impressions: Array) -> Scores:
        """See `service.scoring.engines.Engine`.

        Raises:
            IndexError: an index that its table has no row for.
            ValueError: an array that does not fit the others.
        """
        rows = len(batch.item_index)
        units = self._hidden[-1] if method.last_layer else sum(self._hidden)
        shape = len(masks), rows if method.own_masks else 1, units
        masks = _array(masks, np.float32, shape)
        impressions = _array(impressions, np.int64, (rows,))
        return self._run(byref(method), batch, address(masks), address(impressions), lambda_, shape)

    def plain(self, batch: Batch) -> Scores:
        """f alone: p_click, the same as score, and of all else 0. Raises like `scores`."""
        return self._run(None, batch, None, None, 0.0, (0, 0, 0))

    def _run(
        self,
        method: Any,
        batch: Batch,
        masks: int | None,
        impressions: int | None,
        lambda_: float,
        shape: tuple[int, int, int],
    ) -> Scores:
        rows, context, item = len(batch.item_index), self._spec.context.slots, self._spec.item.slots
        given = (
            _array(batch.context_index, np.int32, (1, context)),
            _array(batch.item_index, np.int32, (rows, item)),
            _array(batch.context_weight, np.float32, (1, context)),
            _array(batch.item_weight, np.float32, (rows, item)),
        )
        columns = np.empty((len(Scores._fields), rows), dtype=np.float32)
        draws, mask_rows, units = shape
        request = _Request(
            *map(address, given), masks, impressions, address(columns), lambda_, rows, draws, mask_rows, units
        )
        code = self._age_scores(self._path, byref(self._network), method, byref(request))
        if code == _NO_MEMORY:
            raise MemoryError(f"no memory for the scores of {rows} candidates")
        if code:
            raise IndexError(f"an index on the {_SIDES[code]} side has no row in its table")
        return Scores(*columns)


def _array(array: Array, dtype: type, shape: tuple[int, ...]) -> Array:
    """As C reads it; a copy only where it is otherwise."""
    if array.shape != shape:
        raise ValueError(f"an array of shape {array.shape} where {shape} was expected")
    return np.ascontiguousarray(array, dtype=dtype)


def dropout(masks: NoiseInput, *, request_seed: int, version: int, item_hash: Array) -> Array:
    """What `models.noise.draw` draws for this input of one request, (S, R, U)."""
    own = masks.scope == "candidate"
    drawn = np.empty((masks.draws, len(item_hash) if own else 1, masks.width), dtype=np.float32)
    seed = version if masks.scope == "version" else request_seed
    hashes = address(item_hash) if own else None
    _dropout()(seed, seed_of(masks.name), hashes, drawn.shape[1], masks.draws, masks.width, masks.rate, address(drawn))
    return drawn


@cache
def _dropout() -> Any:
    function = library()["age_dropout"]
    function.argtypes = [c_uint64, c_uint64, c_void_p, c_int32, c_int32, c_int32, c_double, c_void_p]
    function.restype = None
    return function
