"""What batches are computed with: buffers that never move, and over them one computation for each strategy and size.

On CUDA each is captured once as a graph, when the device is made. A graph knows addresses, not values: a batch is new
values in the same inputs, a new version new values in the same parameters. On a CPU the same code runs as it stands.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from models.networks.click import ClickNetwork, Params
from models.noise_torch import TorchNoise
from models.registry import Exploration
from models.spec import FeatureSpec
from models.types import Array, Batch, Inputs, Scores
from service.scoring.engines.batching import Request

#: Rows of the smallest size; each next one is twice as large.
SMALLEST = 128
_WARM_UPS = 3  # torch's advice

Runner = Callable[[], object]


class Slots:
    """The inputs and outputs of one size: numpy views for who fills them, tensors for who computes with them.

    Args:
        rows: B.
        requests: Q, at most, to which the rows belong.
    """

    def __init__(self, spec: FeatureSpec, rows: int, requests: int, device: torch.device) -> None:
        layout = np.dtype(
            [
                ("request_seed", np.uint64, (requests,)),  # the widest first, so that all are aligned
                ("version", np.int64, (1,)),
                ("item_hash", np.uint64, (rows,)),
                ("request", np.int64, (rows,)),
                ("impressions", np.int64, (rows,)),
                ("lambda_", np.float32, (rows, 1)),
                ("context_index", np.int32, (rows, spec.context.slots)),
                ("context_weight", np.float32, (rows, spec.context.slots)),
                ("item_index", np.int32, (rows, spec.item.slots)),
                ("item_weight", np.float32, (rows, spec.item.slots)),
            ]
        )
        self.rows = rows
        self._there, self._here = _pair((layout.itemsize,), torch.uint8, device)
        self._scores, self._scores_here = _pair((len(Scores._fields), rows), torch.float32, device)
        record = self._here.numpy().view(layout)
        fields = {name: field[:2] for name, field in (layout.fields or {}).items()}  # (dtype with shape, first byte)
        self._given: dict[str, Array] = {name: record[name][0] for name in fields}
        #: int64, int32 and float32; of a uint64 its bits.
        self.inputs = {name: _part(self._there, *field) for name, field in fields.items()}

    def fill(self, requests: Sequence[Request]) -> None:
        """Rows beyond the last keep what they had: nobody reads their scores, and no score depends on another row."""
        start = 0
        for number, one in enumerate(requests):
            rows = slice(start, start := start + one.rows)
            self._given["request_seed"][number] = one.noise.request_seed
            self._given["version"][0] = one.noise.version
            self._given["item_hash"][rows] = one.noise.item_hash
            self._given["request"][rows] = number
            self._given["impressions"][rows] = one.impressions
            self._given["lambda_"][rows] = one.lambda_
            for name, values in one.batch._asdict().items():
                self._given[name][rows] = values  # one row of context for all of the request's
        self._there.copy_(self._here, non_blocking=True)

    def put(self, scores: Scores[Tensor]) -> None:
        """Takes what was computed, (B,) each."""
        torch.stack(scores, out=self._scores)

    def fetch(self) -> None:
        """Begins the way back; `read` may be called when the device is done."""
        self._scores_here.copy_(self._scores, non_blocking=True)

    def read(self, requests: Sequence[Request]) -> list[Scores]:
        ends = np.cumsum([one.rows for one in requests])
        scores = self._scores_here.numpy()[:, : ends[-1]].copy()  # the next batch overwrites it
        return [Scores(*part) for part in np.split(scores, ends[:-1], axis=1)]


class Device:
    """A network and its strategies, ready for any version's parameters. Used by one thread at a time.

    Args:
        params: prepared, of the first version.
        strategies: by name.
        max_rows, max_requests: of a batch.
        fuse: compile the computation (torch.compile) before it is captured.
    """

    def __init__(
        self,
        network: ClickNetwork,
        params: Params,
        strategies: Mapping[str, Exploration],
        *,
        max_rows: int,
        max_requests: int,
        fuse: bool = False,
    ) -> None:
        self._network, self._strategies = network, dict(strategies)
        self._holds = params  # the version that is in the buffers
        self._params = {name: value.clone() for name, value in params.items()}
        where = next(iter(params.values())).device
        self._stream = torch.cuda.Stream(where) if where.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle() if self._stream else None
        self._slots = [Slots(network.spec, rows, max_requests, where) for rows in sizes(max_rows)]
        self._runners: dict[tuple[str, int], Runner] = {}
        for name, exploration in strategies.items():
            compute = _computation(network, exploration, where)
            if fuse:
                compute = torch.compile(compute, fullgraph=True, dynamic=False)
            for slots in reversed(self._slots):  # the largest first: the others find their memory in its pool
                self._runners[name, slots.rows] = self._runner(compute, slots)

    def serves(self, network: ClickNetwork, strategies: Mapping[str, Exploration]) -> bool:
        """Whether versions of this network with these strategies need no other device."""
        return (network, strategies) == (self._network, self._strategies)

    def run(self, params: Params, strategy: str, requests: Sequence[Request]) -> list[Scores]:
        """Scores of requests that together have at most `max_rows` candidates.

        Args:
            params: prepared, of the version that all requests are for. Told apart by identity.
        """
        rows = sum(one.rows for one in requests)
        slots = next(slots for slots in self._slots if slots.rows >= rows)
        with torch.inference_mode(), torch.cuda.stream(self._stream):
            if self._holds is not params:
                for name, value in params.items():
                    self._params[name].copy_(value)
                self._holds = params
            slots.fill(requests)
            self._runners[strategy, slots.rows]()
            slots.fetch()
        if self._stream:
            self._stream.synchronize()
        return slots.read(requests)

    def _runner(self, compute: "_Computation", slots: Slots) -> Runner:
        def work() -> None:
            with torch.inference_mode():
                slots.put(compute(self._params, slots.inputs))

        if self._stream is None:
            return work
        with torch.cuda.stream(self._stream):
            for _ in range(_WARM_UPS):  # what is chosen or compiled at first use must not fall into the capture
                work()
        self._stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # A device of another architecture may serve in another thread meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


def sizes(max_rows: int) -> list[int]:
    """Rows of the batches that are computed, ascending; the last is `max_rows`."""
    found = [max_rows]
    while found[0] > SMALLEST:
        found.insert(0, max(SMALLEST, 1 << ((found[0] - 1).bit_length() - 1)))
    return found


_Computation = Callable[[Params, Mapping[str, Tensor]], Scores[Tensor]]


def _computation(network: ClickNetwork, exploration: Exploration, device: torch.device) -> _Computation:
    """From parameters and slots to scores, in shapes that depend on no value."""
    noise = TorchNoise(exploration.noise(network), device)

    def compute(params: Params, given: Mapping[str, Tensor]) -> Scores[Tensor]:
        keys = {name: given[name] for name in ("request_seed", "version", "item_hash", "request")}
        batch = Batch(*(given[name] for name in Batch._fields))
        inputs = Inputs(batch, noise.draw(**keys), given["lambda_"], given["impressions"], static=True)
        return exploration.scores(network, params, inputs)

    return compute


def _pair(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """A buffer on the device and its counterpart here; on a CPU they are one."""
    if device.type == "cpu":
        here = torch.zeros(shape, dtype=dtype)
        return here, here
    return torch.zeros(shape, dtype=dtype, device=device), torch.zeros(shape, dtype=dtype, pin_memory=True)


def _part(record: Tensor, field: np.dtype[np.void], start: int) -> Tensor:
    kind = {"uint64": "int64"}.get(field.base.name, field.base.name)
    return record[start : start + field.itemsize].view(getattr(torch, kind)).reshape(field.shape)
