"""The ranking graph of a strategy as ONNX bytes: the torch code of the method, traced; no second copy of any formula.

Parameters, noise, lambda and impression counts are inputs, so the bytes depend on shapes alone: a new model version
runs through the very same graph.
"""

import io
import warnings
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning

from models.beliefs.belief import fresh, prepare
from models.networks.click import ClickNetwork
from models.registry import Strategy
from models.types import PARAM, Batch, Inputs, Scores


class _Graph(nn.Module):
    """A strategy with everything it reads as positional inputs, which is what the exporter understands."""

    def __init__(self, network: ClickNetwork, strategy: Strategy, params: Sequence[str], noise: Sequence[str]) -> None:
        super().__init__()
        self.network, self.strategy, self.params, self.noise = network, strategy, params, noise

    def forward(self, *inputs: Tensor) -> Scores[Tensor]:
        values = list(inputs)
        batch = Batch(*values[:4])
        impressions, lambda_ = values[4], values[5]
        noise = dict(zip(self.noise, values[6 : 6 + len(self.noise)], strict=True))
        params = dict(zip(self.params, values[6 + len(self.noise) :], strict=True))
        return self.strategy.exploration.scores(self.network, params, Inputs(batch, noise, lambda_, impressions))


def export(network: ClickNetwork, strategy: Strategy) -> bytes:
    """ONNX of one request's ranking.

    Inputs: the fields of Batch with C = 1, "impressions" (B,) int64, "lambda" () float32, each NoiseInput by name
    (S, R, U), each parameter as "param.<name>". Outputs: the fields of Scores, (B,). B is free; an input that a method
    does not use may be absent from its graph.
    """
    noise = strategy.exploration.noise(network)
    params = prepare(network, strategy.beliefs, fresh(network, strategy.beliefs, seed=0))
    rows = 3  # any B that no other size equals by chance
    spec = network.spec
    inputs = {
        "context_index": torch.zeros(1, spec.context.slots, dtype=torch.int32),
        "context_weight": torch.zeros(1, spec.context.slots),
        "item_index": torch.zeros(rows, spec.item.slots, dtype=torch.int32),
        "item_weight": torch.zeros(rows, spec.item.slots),
        "impressions": torch.zeros(rows, dtype=torch.int64),
        "lambda": torch.zeros(()),
    }
    free = {name: {0: "candidates"} for name in ("item_index", "item_weight", "impressions", *Scores._fields)}
    for one in noise:
        shared = one.scope != "candidate"
        inputs[one.name] = torch.zeros(one.draws, 1 if shared else rows, one.width)
        if not shared:
            free[one.name] = {1: "candidates"}
    inputs |= {PARAM + name: value for name, value in params.items()}
    graph = _Graph(network, strategy, list(params), [one.name for one in noise])
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The newer exporter takes 6 s instead of 0.2 s, writes five times the bytes and puts source paths into them.
        warnings.simplefilter("ignore", DeprecationWarning)
        # A branch on a size is taken here once and for all. The sizes branched on are constants of a graph.
        warnings.simplefilter("ignore", TracerWarning)
        torch.onnx.export(
            graph,
            tuple(inputs.values()),
            cast(str, buffer),  # torch takes a file object, its annotation only a path
            input_names=list(inputs),
            output_names=list(Scores._fields),
            dynamic_axes=free,
            opset_version=17,
            dynamo=False,
        )
    return buffer.getvalue()
