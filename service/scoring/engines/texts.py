"""Texts and the compiled kernel: all of a request's features in one call."""

from collections.abc import Sequence
from ctypes import c_char_p, c_size_t, c_void_p

import numpy as np

from models.columns import Texts
from models.types import Array
from service.scoring.engines.kernel import library
from service.scoring.engines.packing import address


class CompiledTexts(Texts):
    """See `models.columns.Texts`. Raises OSError: see `library`."""

    def __init__(self) -> None:
        # Functions of one of our own: their types are set here.
        self._hashes, self._fill = library()["age_hashes"], library()["age_fill"]
        self._hashes.argtypes = [c_char_p, c_size_t, c_size_t, c_size_t, c_void_p, c_void_p]
        self._fill.argtypes = [c_char_p, c_size_t, c_void_p, c_size_t, c_size_t, c_size_t, c_void_p]

    def hashes(self, texts: Sequence[Sequence[str]], seeds: Array) -> Array:
        each, joined, seeds = len(texts[0]), _joined(texts), np.ascontiguousarray(seeds)
        hashes = np.empty((len(seeds), each), dtype=np.uint64)
        if self._hashes(joined, len(joined), hashes.size, each, address(seeds), address(hashes)):
            return hashes
        return super().hashes(texts, seeds)  # a text too long for it, or with a NUL in it

    def fill(self, texts: Sequence[Sequence[str]], columns: Array, index: Array) -> None:
        each, joined, stride = len(texts[0]), _joined(texts), index.shape[1]
        if not self._fill(joined, len(joined), address(columns), len(columns), each, stride, address(index)):
            super().fill(texts, columns, index)


def _joined(texts: Sequence[Sequence[str]]) -> bytes:
    return "\0".join(map("\0".join, texts)).encode()
