"""Engines turn a batch into scores: one interface; native, onnxruntime or torch; equal within 1e-5."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from models.features import Encoder
from models.noise import draw
from models.spec import FeatureSpec
from models.types import Array, Batch, Noise, NoiseInput, Scores
from service.checkpoints import Manifest

if TYPE_CHECKING:
    from service.scoring.engines.batching import Batcher

Kind = Literal["native", "onnx", "torch"]


class SeededNoise(Mapping[str, Array]):
    """One request's noise: the arrays to who reads them, and what they are drawn from to who draws them elsewhere.

    Args:
        inputs: the strategy's.
        request_seed: uint64.
        version: of the model.
        item_hash: (B,) uint64.
    """

    def __init__(self, inputs: Sequence[NoiseInput], *, request_seed: int, version: int, item_hash: Array) -> None:
        self.inputs, self.request_seed, self.version, self.item_hash = inputs, request_seed, version, item_hash

    def part(self, rows: slice) -> "SeededNoise":
        """Of some of the candidates: theirs is the same."""
        item_hash = self.item_hash[rows]
        return SeededNoise(self.inputs, request_seed=self.request_seed, version=self.version, item_hash=item_hash)

    @cached_property
    def _arrays(self) -> Noise:
        seed = np.array([self.request_seed], dtype=np.uint64)
        return draw(self.inputs, request_seed=seed, version=self.version, item_hash=self.item_hash)

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return (one.name for one in self.inputs)

    def __len__(self) -> int:
        return len(self.inputs)


class Engine(Protocol):
    """One version's parameters and every strategy's ranking. Immutable: a swap makes another one."""

    @property
    def batches(self) -> bool:
        """Whether requests that wait in `submit` at the same time are answered together."""
        ...

    def scores(self, strategy: str, batch: Batch, noise: Noise, lambda_: float, impressions: Array) -> Scores:
        """Scores of one request.

        Args:
            strategy: a name of the manifest.
            batch: C = 1 row of context, B candidates.
            noise: the strategy's NoiseInputs by name, (S, R, U) float32.
            lambda_: exploration strength.
            impressions: (B,) int64.
        """
        ...

    async def submit(
        self, strategy: str, batch: Batch, noise: SeededNoise, lambda_: float, impressions: Array
    ) -> Scores:
        """The same scores, computed together with those of other requests where the engine batches.

        Cancelling it is how a request is given up: what was not begun by then is never computed.

        Raises:
            Unavailable: not_ready, while the scorer stops.
        """
        ...


def encoder(kind: Kind, spec: FeatureSpec) -> Encoder:
    """The encoder that goes with an engine: with the native one its way with texts is compiled, too.

    Raises OSError: they were not.
    """
    if kind != "native":
        return Encoder(spec)
    from service.scoring.engines.texts import CompiledTexts

    return Encoder(spec, CompiledTexts())


def load(
    kind: Kind,
    *,
    manifest: Manifest,
    graphs: Mapping[str, bytes],
    weights: Mapping[str, Array],
    threads: int = 1,
    batcher: "Batcher | None" = None,
    fuse: bool = False,
    previous: Engine | None = None,
) -> Engine:
    """An engine for one version.

    Args:
        graphs: strategy -> ONNX bytes; the torch engine does not read them.
        weights: parameter -> array.
        batcher: has the torch engine answer requests together; the others never do.
        fuse: compile what the torch engine batches.
        previous: the engine of the version before, to take over what did not change.

    Raises:
        CheckpointError: shape_mismatch, unreadable_graph, unknown_options.
        OSError: of the native engine, where its kernel was not compiled.
    """
    # Imported here: on the onnxruntime path the process never loads torch, nor onnxruntime on the other.
    if kind == "torch":
        from service.scoring.engines.torch import TorchEngine

        return TorchEngine.load(manifest, weights, threads=threads, batcher=batcher, fuse=fuse, previous=previous)
    if kind == "native":
        from service.scoring.engines.native import NativeEngine

        return NativeEngine.load(manifest, graphs, weights, threads=threads, previous=previous)
    from service.scoring.engines.onnx import OnnxEngine

    return OnnxEngine.load(graphs, weights, threads=threads, previous=previous)
