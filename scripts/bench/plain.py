"""The network without exploration in bare onnxruntime: what is served by whoever does not explore. No torch."""

import os

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import; see service.scoring.engines.onnx
import onnxruntime as ort

from models.types import Array


class PlainNetwork:
    """f(h) with the weights in the graph, on one thread.

    Args:
        graph: of `scripts.bench.naive.plain_graph`.
    """

    def __init__(self, graph: bytes) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def __call__(self, context_index: Array, item_index: Array) -> Array:
        """(1, Kc) and (B, Ki) int32 rows of the tables -> (B,) float32 click probabilities."""
        scores: Array
        (scores,) = self._session.run(None, {"context_index": context_index, "item_index": item_index})
        return scores
