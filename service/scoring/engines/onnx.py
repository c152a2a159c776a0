"""The onnxruntime engine. Parameters are graph inputs, so a version with the same graphs reuses the sessions."""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Before the import: onnxruntime would write a device id below the home folder and send what it runs to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime as ort

from models.types import PARAM, Array, Batch, Noise, Scores
from service.errors import CheckpointError
from service.scoring.engines import SeededNoise

_OUTPUTS = list(Scores._fields)


@dataclass(frozen=True)
class _Ranking:
    """One strategy: its session and what it reads besides the parameters."""

    session: Any  # onnxruntime ships no types
    inputs: frozenset[str]
    params: dict[str, Any]  # graph input -> OrtValue


class OnnxEngine:
    """See `service.scoring.engines.Engine`."""

    batches = False

    def __init__(self, rankings: Mapping[str, _Ranking], sessions: Mapping[str, Any]) -> None:
        self._rankings = rankings
        self._sessions = sessions  # sha256 of the graph -> session

    @classmethod
    def load(
        cls, graphs: Mapping[str, bytes], weights: Mapping[str, Array], *, threads: int, previous: object = None
    ) -> "OnnxEngine":
        """See `service.scoring.engines.load`."""
        known = previous._sessions if isinstance(previous, OnnxEngine) else {}
        # A value wraps its array without a copy; all strategies share it.
        values = {PARAM + name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in weights.items()}
        sessions: dict[str, Any] = {}
        rankings = {}
        for strategy, graph in graphs.items():
            key = hashlib.sha256(graph).hexdigest()
            session = sessions.get(key) or known.get(key) or _session(strategy, graph, threads)
            sessions[key] = session
            params = {}
            for one in session.get_inputs():
                if one.name.startswith(PARAM):
                    value = values.get(one.name)
                    if value is None or value.shape() != one.shape:
                        found = "nothing" if value is None else str(value.shape())
                        raise CheckpointError("shape_mismatch", f"{strategy}: {one.name} is {found}, not {one.shape}")
                    params[one.name] = value
            inputs = frozenset(one.name for one in session.get_inputs()) - params.keys()
            rankings[strategy] = _Ranking(session, inputs, params)
        return cls(rankings, sessions)

    def scores(self, strategy: str, batch: Batch, noise: Noise, lambda_: float, impressions: Array) -> Scores:
        ranking = self._rankings[strategy]
        given = {
            **batch._asdict(),
            **noise,
            "impressions": impressions,
            "lambda": np.array(lambda_, dtype=np.float32),
        }
        feed = dict(ranking.params)
        for name in ranking.inputs:
            feed[name] = ort.OrtValue.ortvalue_from_numpy(given[name])
        outputs = ranking.session.run_with_ort_values(_OUTPUTS, feed)
        return Scores(*(one.numpy() for one in outputs))

    async def submit(
        self, strategy: str, batch: Batch, noise: SeededNoise, lambda_: float, impressions: Array
    ) -> Scores:
        return self.scores(strategy, batch, noise, lambda_, impressions)


def _session(strategy: str, graph: bytes, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # B differs from request to request: plans cached for one shape only cost memory.
    options.enable_mem_pattern = False
    try:
        return ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exception classes have no common base
        raise CheckpointError("unreadable_graph", f"{strategy}: {error}") from error
