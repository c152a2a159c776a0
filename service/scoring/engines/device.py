"""What batches are computed with: buffers that never move, and over them one computation for each strategy and size.

On CUDA each is captured once as a graph, when the device is made. A graph knows addresses, not values: a batch is new
values in the same inputs, a new version new values in the same parameters. On a CPU the same code runs as it stands.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.networks.click import ClickNetwork, Params
from models.noise_torch import TorchNoise
from models.registry import Exploration
from models.types import Inputs, Scores
from service.scoring.engines.batching import Request
from service.scoring.engines.slots import Given, Slots

#: Rows of the smallest size; each next one is twice as large.
SMALLEST = 128
_WARM_UPS = 3  # torch's advice
_RECOMPILE_LIMIT = 256

_Computation = Callable[[Params, Given], Scores[Tensor]]


@dataclass(frozen=True)
class Plan:
    """One strategy at one size."""

    slots: Slots
    run: Callable[[], object]  # computes over the slots


class Device:
    """A network and its strategies, ready for any version's parameters. Used by one thread at a time.

    Args:
        params: prepared, of the first version.
        strategies: by name.
        max_rows, max_requests: of a batch.
        fuse: compile (torch.compile) before the capture; on a CPU at the first batch of each strategy.

    Attributes:
        stream: on which everything runs; None on a CPU.
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
        self._holds: Params | None = params  # the version that is in the buffers
        where = next(iter(params.values())).device
        self.stream = torch.cuda.Stream(where) if where.type == "cuda" else None  # type: ignore[no-untyped-call]
        if self.stream:
            self.stream.wait_stream(torch.cuda.current_stream(where))  # on which the parameters came
        if fuse:  # all strategies are one piece of code, and each of them is compiled for one size and then for any
            torch._dynamo.config.recompile_limit = _RECOMPILE_LIMIT
        self._pool = torch.cuda.graph_pool_handle() if self.stream else None
        self._plans: dict[str, list[Plan]] = {}
        with torch.cuda.stream(self.stream):
            self._params = {name: value.clone() for name, value in params.items()}
            for name, exploration in strategies.items():
                declared = exploration.noise(network)
                compute = _computation(network, exploration, TorchNoise(declared, where))
                if fuse:
                    compute = torch.compile(compute, fullgraph=True)
                slots = [
                    Slots(network.spec, declared, rows=rows, requests=max_requests, device=where)
                    for rows in sizes(max_rows)
                ]
                # The largest first: the others find their memory in its pool.
                self._plans[name] = [Plan(one, self._runner(compute, one)) for one in reversed(slots)][::-1]

    def serves(self, network: ClickNetwork, strategies: Mapping[str, Exploration]) -> bool:
        """Whether versions of this network with these strategies need no other device."""
        return (network, strategies) == (self._network, self._strategies)

    def plan(self, strategy: str, rows: int) -> Plan:
        """For so many rows, at most `max_rows`."""
        return next(plan for plan in self._plans[strategy] if plan.slots.rows >= rows)

    def run(self, params: Params, strategy: str, requests: Sequence[Request]) -> list[Scores]:
        """Scores of requests that together have at most `max_rows` candidates.

        Args:
            params: prepared, of the version that all requests are for. Told apart by identity.
        """
        plan = self.plan(strategy, sum(one.rows for one in requests))
        with torch.inference_mode(), torch.cuda.stream(self.stream):
            if self._holds is not params:
                self._holds = None  # neither, should it fail on the way
                for name, value in params.items():
                    self._params[name].copy_(value)
                self._holds = params
            plan.slots.fill(requests)
            plan.run()
            plan.slots.fetch()
        if self.stream:
            self.stream.synchronize()
        return plan.slots.read(requests)

    def _runner(self, compute: _Computation, slots: Slots) -> Callable[[], object]:
        """What computes over the slots: a captured graph, or on a CPU the code itself."""

        def work() -> None:
            with torch.inference_mode():
                slots.put(compute(self._params, slots.given))

        if self.stream is None:
            return work
        for _ in range(_WARM_UPS):  # what is compiled or chosen at first use must not fall into the capture
            work()
        self.stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        # A device of another architecture may serve in another thread meanwhile.
        with torch.cuda.graph(graph, pool=self._pool, stream=self.stream, capture_error_mode="thread_local"):
            work()
        return graph.replay


def sizes(max_rows: int) -> list[int]:
    """Rows of the batches that are computed, ascending; the last is `max_rows`."""
    found = [max_rows]
    while found[0] > SMALLEST:
        found.insert(0, max(SMALLEST, 1 << ((found[0] - 1).bit_length() - 1)))
    return found


def _computation(network: ClickNetwork, exploration: Exploration, noise: TorchNoise) -> _Computation:
    """From parameters and slots to scores, in shapes that depend on no value."""

    def compute(params: Params, given: Given) -> Scores[Tensor]:
        drawn = noise.draw(given.mixed_keys, given.request)
        inputs = Inputs(given.batch, drawn, given.lambda_, given.impressions, static=True)
        return exploration.scores(network, params, inputs)

    return compute
