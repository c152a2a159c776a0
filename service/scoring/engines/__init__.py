"""Engines turn a batch into scores. One interface; onnxruntime by default, torch on request; equal within 1e-5."""

from collections.abc import Mapping
from typing import Literal, Protocol

from models.types import Array, Batch, Noise, Scores
from service.checkpoints import Manifest


class Engine(Protocol):
    """One version's parameters and every strategy's ranking. Immutable: a swap makes another one."""

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


def load(
    kind: Literal["onnx", "torch"],
    *,
    manifest: Manifest,
    graphs: Mapping[str, bytes],
    weights: Mapping[str, Array],
    threads: int = 1,
    previous: Engine | None = None,
) -> Engine:
    """An engine for one version.

    Args:
        graphs: strategy -> ONNX bytes; the torch engine does not read them.
        weights: parameter -> array.
        previous: the engine of the version before, to take over what did not change.

    Raises:
        CheckpointError: shape_mismatch, unreadable_graph.
    """
    # Imported here: on the onnxruntime path the process never loads torch, nor onnxruntime on the other.
    if kind == "torch":
        from service.scoring.engines.torch import TorchEngine

        return TorchEngine.load(manifest, weights, threads=threads)
    from service.scoring.engines.onnx import OnnxEngine

    return OnnxEngine.load(graphs, weights, threads=threads, previous=previous)
