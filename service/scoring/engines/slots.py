"""Where a batch lies on a device: buffers that never move, filled from requests and read back by them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from models import noise
from models.spec import FeatureSpec
from models.types import Array, Batch, NoiseInput, Scores
from service.scoring.engines.batching import Request

_KEY = "key."  # prefix of the noise inputs' names


class Given(NamedTuple):
    """What a batch depends on besides the parameters, on the device."""

    mixed_keys: dict[str, Tensor]  # see `TorchNoise.draw`
    request: Tensor  # (B,) int64 index of the request whose row it is
    batch: Batch[Tensor]  # C = B
    lambda_: Tensor  # (B, 1)
    impressions: Tensor  # (B,) int64


class Slots:
    """The inputs and outputs of one strategy's batches of one size.

    They travel as one piece each way. On a CPU there is no way: the buffers here and there are one.

    Args:
        declared: the strategy's noise.
        rows: B.
        requests: Q, to which the rows belong at most.
    """

    def __init__(
        self, spec: FeatureSpec, declared: Sequence[NoiseInput], *, rows: int, requests: int, device: torch.device
    ) -> None:
        lengths = {"request": requests, "candidate": rows, "version": 1}
        layout = np.dtype(
            [
                *((f"{_KEY}{one.name}", np.uint64, (lengths[one.scope],)) for one in declared),
                ("request", np.int64, (rows,)),  # the widest first, so that all are aligned
                ("impressions", np.int64, (rows,)),
                ("lambda_", np.float32, (rows, 1)),
                ("context_index", np.int32, (rows, spec.context.slots)),
                ("context_weight", np.float32, (rows, spec.context.slots)),
                ("item_index", np.int32, (rows, spec.item.slots)),
                ("item_weight", np.float32, (rows, spec.item.slots)),
            ]
        )
        self.rows, self._declared = rows, declared
        self._given_there, self._given_here = _pair((layout.itemsize,), torch.uint8, device)
        self._scores_there, self._scores_here = _pair((len(Scores._fields), rows), torch.float32, device)
        record = self._given_here.numpy().view(layout)
        places = {name: place[:2] for name, place in (layout.fields or {}).items()}  # (dtype with shape, first byte)
        self._views: dict[str, Array] = {name: record[name][0] for name in places}
        tensors = {name: _tensor(self._given_there, *place) for name, place in places.items()}
        self.given = Given(
            {one.name: tensors[f"{_KEY}{one.name}"] for one in declared},
            tensors["request"],
            Batch(*(tensors[name] for name in Batch._fields)),
            tensors["lambda_"],
            tensors["impressions"],
        )

    def fill(self, requests: Sequence[Request]) -> None:
        """Rows beyond the last keep what they had: nobody reads their scores, and no score depends on another row."""
        start = 0
        for number, one in enumerate(requests):
            rows = slice(start, start := start + one.rows)
            self._views["request"][rows] = number
            self._views["impressions"][rows] = one.impressions
            self._views["lambda_"][rows] = one.lambda_
            for name, values in one.batch._asdict().items():
                self._views[name][rows] = values  # one row of context for all rows of the request
        self._fill_keys(requests, self._views["request"][:start])
        self._given_there.copy_(self._given_here, non_blocking=True)

    def _fill_keys(self, requests: Sequence[Request], request: Array) -> None:
        """request: (rows in use,)."""
        item_hash = np.concatenate([one.noise.item_hash for one in requests])
        seeds = np.array([one.noise.request_seed for one in requests], dtype=np.uint64)
        for one in self._declared:
            key = noise.keys(
                one,
                request_seed=seeds[request] if one.scope == "candidate" else seeds,
                version=requests[0].noise.version,
                item_hash=item_hash,
            )
            self._views[f"{_KEY}{one.name}"][: len(key)] = noise.mix(key)

    def put(self, scores: Scores[Tensor]) -> None:
        """Takes what was computed, (B,) each."""
        torch.stack(scores, out=self._scores_there)

    def fetch(self) -> None:
        """Begins the way back."""
        self._scores_here.copy_(self._scores_there, non_blocking=True)

    def read(self, requests: Sequence[Request]) -> list[Scores]:
        """What was fetched, by request. To be called when the device is done."""
        rows = sum(one.rows for one in requests)
        scores, start = self._scores_here.numpy()[:, :rows].copy(), 0  # the next batch overwrites it
        found = []
        for one in requests:
            found.append(Scores(*scores[:, start : start + one.rows]))
            start += one.rows
        return found


def _pair(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """A buffer on the device and its counterpart here."""
    if device.type == "cpu":
        here = torch.zeros(shape, dtype=dtype)
        return here, here
    return torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, pin_memory=True)


def _tensor(record: Tensor, field: np.dtype[np.void], start: int) -> Tensor:
    """A field of the record; of uint64 its bits as int64."""
    kind = {"uint64": "int64"}.get(field.base.name, field.base.name)
    return record[start : start + field.itemsize].view(getattr(torch, kind)).reshape(field.shape)
