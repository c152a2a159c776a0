"""The native engine: AGE and greedy in a compiled kernel; other methods, and AGE with rarer options, in onnxruntime.

AGE as a graph is some hundred and fifty nodes, each a pass over all candidates, and products whose weights, being
inputs, are laid out anew at every call. The kernel runs all steps over a few candidates at a time, with weights laid
out once per version. It is a second copy of the method's formulas, so nothing is served by it that has not answered
the version's golden request as torch did.
"""

from collections.abc import Collection, Mapping
from typing import Literal

import msgspec

from models.spec import FeatureSpec
from models.types import Array, Batch, Noise, Scores
from service.checkpoints import Manifest, ServedStrategy
from service.errors import CheckpointError
from service.scoring.engines import SeededNoise
from service.scoring.engines.kernel import Kernel, Method, dropout
from service.scoring.engines.onnx import OnnxEngine

_GATES = ("none", "fixed", "learned")  # by their number in C


class _Age(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the method, all of them: their defaults and their meaning are the trainer's."""

    uncertainty: Literal["thompson", "ucb", "gaussian"]
    draws: int
    dropout: Literal["full", "last_layer"]
    rate: float
    mask_scope: Literal["request", "candidate", "version"]
    direction: Literal["fgm", "pgd", "ones"]
    pgd: Literal["literal", "projected"]
    steps: int
    gate: Literal["learned", "fixed", "none"]
    gate_threshold: float
    max_impressions: int | None
    novelty: float | None


class NativeEngine:
    """See `service.scoring.engines.Engine`."""

    batches = False

    def __init__(
        self, kernel: Kernel, methods: Mapping[str, Method], greedy: Collection[str], others: OnnxEngine
    ) -> None:
        self._kernel, self._methods, self._greedy, self._others = kernel, methods, greedy, others

    @classmethod
    def load(
        cls,
        manifest: Manifest,
        graphs: Mapping[str, bytes],
        weights: Mapping[str, Array],
        *,
        threads: int,
        previous: object = None,
        path: int | None = None,
    ) -> "NativeEngine":
        """See `service.scoring.engines.load`.

        Args:
            path: of the kernel, see `Kernel`.
        """
        served = {name: _served(name, one) for name, one in manifest.strategies.items() if one.method == "age"}
        methods = {name: method for name, method in served.items() if method is not None}
        greedy = {name for name, one in manifest.strategies.items() if one.method == "greedy"}
        hidden = msgspec.convert(manifest.network["hidden"], tuple[int, ...])
        kernel = Kernel(FeatureSpec.from_toml(manifest.spec), hidden, weights, path=path)
        others = OnnxEngine.load(
            {name: graph for name, graph in graphs.items() if name not in methods.keys() | greedy},
            weights,
            threads=threads,
            previous=previous._others if isinstance(previous, NativeEngine) else None,
        )
        return cls(kernel, methods, greedy, others)

    def scores(self, strategy: str, batch: Batch, noise: Noise, lambda_: float, impressions: Array) -> Scores:
        if strategy in self._greedy:
            return self._kernel.plain(batch)
        method = self._methods.get(strategy)
        if method is None:
            return self._others.scores(strategy, batch, noise, lambda_, impressions)
        return self._kernel.scores(method, batch, noise["masks"], lambda_, impressions)

    async def submit(
        self, strategy: str, batch: Batch, noise: SeededNoise, lambda_: float, impressions: Array
    ) -> Scores:
        method = self._methods.get(strategy)
        if method is None:
            return self.scores(strategy, batch, noise, lambda_, impressions)
        return self._kernel.scores(method, batch, _drawn(noise), lambda_, impressions)


def _drawn(noise: SeededNoise) -> Array:
    """Its masks, drawn by the kernel: in a tenth of the time."""
    (masks,) = noise.inputs
    return dropout(masks, request_seed=noise.request_seed, version=noise.version, item_hash=noise.item_hash)


def method(options: Mapping[str, object]) -> Method | None:
    """AGE for the kernel, None where it has not learned these options.

    Raises:
        msgspec.ValidationError: options that are not those of the method.
    """
    age = msgspec.convert(options, _Age)
    if age.uncertainty == "gaussian" or age.direction == "ones" or age.novelty is not None:
        return None
    return Method(
        ucb=age.uncertainty == "ucb",
        last_layer=age.dropout == "last_layer",
        own_masks=age.mask_scope == "candidate",
        pgd=age.direction == "pgd",
        projected=age.direction == "pgd" and age.pgd == "projected",
        steps=age.steps,
        gate=_GATES.index(age.gate),
        threshold=age.gate_threshold if age.gate == "fixed" else 0.0,
        max_impressions=2**63 - 1 if age.max_impressions is None else age.max_impressions,
    )


def _served(name: str, strategy: ServedStrategy) -> Method | None:
    """Raises CheckpointError: unknown_options."""
    try:
        return method(strategy.options)
    except msgspec.ValidationError as error:
        raise CheckpointError("unknown_options", f"{name}: {error}") from None
