"""Tensors in pieces: what safetensors writes is read, wherever the pieces end; what it would not write is no file."""

import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save

from service import checkpoints
from service.checkpoints.store import PIECE
from service.checkpoints.tensors import not_finite
from service.errors import CheckpointError

TENSORS = {
    "a": np.arange(6, dtype=np.float64).reshape(2, 3),
    "b": np.ones(5, dtype=np.float16),
    "c": np.array([2**63], dtype=np.uint64),  # of which each bit pattern is a number
    "d": np.zeros((0, 7), dtype=np.float32),
    "e": np.full((3, 1), -1, dtype=np.int16),
    "f": np.array(0.5, dtype=np.float32),
}


def cut(content: bytes, length: int) -> Iterator[bytes]:
    yield from (content[start : start + length] for start in range(0, len(content), length))


@pytest.mark.parametrize("length", [1, 3, 7, 8, 10_000])
def test_the_first_that_is_not_finite_is_named_wherever_the_pieces_end(length: int) -> None:
    assert not_finite(cut(save(TENSORS, metadata={"by": "hand"}), length)) is None
    for name in ("a", "b", "f"):
        for value in (np.nan, np.inf, -np.inf):
            spoiled = TENSORS[name].copy()
            spoiled[(-1,) * spoiled.ndim] = value
            assert not_finite(cut(save({**TENSORS, name: spoiled}), length)) == name


def test_an_empty_file_of_tensors_is_one() -> None:
    assert not_finite(cut(save({}), 8)) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        b"not safetensors, but long enough to be",
        save(TENSORS)[:-1],
        save(TENSORS).replace(b'"data_offsets":[0,', b'"data_offsets":[8,'),
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b'"\xff"}',
        (100_000_001).to_bytes(8, "little"),
    ],
)
def test_what_is_no_file_of_tensors_is_not_read_as_one(content: bytes) -> None:
    with pytest.raises(ValueError, match="."):
        not_finite(cut(content, 16))


def test_a_version_is_verified_in_pieces(place: Any, kit: Any) -> None:
    large = np.zeros(6 * PIECE // 4 + 1, dtype=np.float32)
    written = kit.save(place.store, 1, weights={"large": large}, state={"as_large": large})
    tracemalloc.start()
    try:
        assert checkpoints.verify(place.again, 1) == written
        assert tracemalloc.get_traced_memory()[1] < 5 * PIECE
    finally:
        tracemalloc.stop()
    large[-1] = np.nan
    kit.save(place.store, 2, weights={"large": large})
    with pytest.raises(CheckpointError, match="not_finite: version 2: large holds"):
        checkpoints.verify(place.again, 2)
