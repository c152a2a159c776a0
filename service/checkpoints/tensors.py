"""The tensors of a safetensors file that comes in pieces: whether all are finite, however many and large they are."""

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from service.checkpoints.store import PIECE

_FLOATS: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
_MAX_HEADER_BYTES = 100_000_000  # as safetensors has it


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str
    data_offsets: tuple[int, int]  # from the end of the header on


def not_finite(pieces: Iterator[bytes]) -> str | None:
    """The first tensor that holds NaN or infinity, None where there is none. Raises ValueError: it is no such file."""
    source, position = _Source(pieces), 0
    for name, tensor in _header(source):
        begin, end = tensor.data_offsets
        if begin != position or end < begin:
            raise ValueError(f"{name} does not begin where the tensor before it ends")
        for start in range(begin, end, PIECE):
            piece, dtype = source.take(min(PIECE, end - start)), _FLOATS.get(tensor.dtype)
            if dtype and not np.isfinite(np.frombuffer(piece, dtype)).all():
                return name
        position = end
    return None


class _Source:
    """What is left of a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._piece = pieces, memoryview(b"")

    def take(self, count: int) -> bytes:
        """The next so many bytes. Raises ValueError: it ends before."""
        taken = []
        while count:
            self._piece = self._piece or memoryview(next(self._pieces, b""))
            if not self._piece:
                raise ValueError(f"it ends {count} bytes too soon")
            part, self._piece = self._piece[:count], self._piece[count:]
            taken.append(part)
            count -= len(part)
        return b"".join(taken)


def _header(source: _Source) -> list[tuple[str, _Tensor]]:
    """In the order of the file."""
    length = int.from_bytes(source.take(8), "little")
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"a header of {length} bytes")
    try:
        found = msgspec.json.decode(source.take(length), type=dict[str, msgspec.Raw])
        found.pop("__metadata__", None)
        tensors = {name: msgspec.json.decode(one, type=_Tensor) for name, one in found.items()}
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
    return sorted(tensors.items(), key=lambda one: one[1].data_offsets)
