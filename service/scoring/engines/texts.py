"""Hashes of texts by the compiled kernel: all of a request's features in one call."""

from collections.abc import Sequence
from ctypes import c_char_p, c_size_t, c_void_p
from itertools import chain

import numpy as np

from models import columns
from models.types import Array
from service.scoring.engines.kernel import library
from service.scoring.engines.packing import address


class HashTexts:
    """See `models.columns.HashTexts`. Raises OSError: see `library`."""

    def __init__(self) -> None:
        self._hashes = library()["age_hashes"]  # one of our own: its types are set here
        self._hashes.argtypes = [c_char_p, c_size_t, c_size_t, c_size_t, c_void_p, c_void_p]

    def __call__(self, texts: Sequence[Sequence[str]], seeds: Array) -> Array:
        each = len(texts[0])
        joined = "\0".join(chain.from_iterable(texts)).encode()
        hashes = np.empty((len(seeds), each), dtype=np.uint64)
        if self._hashes(joined, len(joined), hashes.size, each, address(seeds), address(hashes)):
            return hashes
        return columns.hash_texts(texts, seeds)  # a text too long for it, or with a NUL in it
