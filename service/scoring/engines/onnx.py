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


@dataclass(frozen=True)
class _Ranking:
    """One strategy: its session, the binding that points to the parameters, and the names of what else it reads."""

    session: Any  # onnxruntime ships no types
    binding: Any
    inputs: tuple[str, ...]
    values: Mapping[str, Any]  # kept: not every onnxruntime that we take keeps what is bound

    def run(self, given: Mapping[str, Array]) -> Scores:
        """Not to be called by two threads at once: a binding holds the inputs and outputs of one run."""
        for name in self.inputs:
            self.binding.bind_cpu_input(name, given[name])
        for name in Scores._fields:
            self.binding.bind_output(name)  # anew for each run: the number of candidates differs
        self.session.run_with_iobinding(self.binding)
        return Scores(*self.binding.copy_outputs_to_cpu())


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
            rankings[strategy] = _bind(strategy, session, values)
        return cls(rankings, sessions)

    def scores(self, strategy: str, batch: Batch, noise: Noise, lambda_: float, impressions: Array) -> Scores:
        given = {
            **batch._asdict(),
            **noise,
            "impressions": impressions,
            "lambda": np.array(lambda_, dtype=np.float32),
        }
        return self._rankings[strategy].run(given)

    async def submit(
        self, strategy: str, batch: Batch, noise: SeededNoise, lambda_: float, impressions: Array
    ) -> Scores:
        return self.scores(strategy, batch, noise, lambda_, impressions)


def _bind(strategy: str, session: Any, values: Mapping[str, Any]) -> _Ranking:
    """A ranking whose parameters are bound once, so that a request pays for its own inputs only.

    Raises CheckpointError: shape_mismatch.
    """
    binding, inputs = session.io_binding(), []
    for one in session.get_inputs():
        if not one.name.startswith(PARAM):
            inputs.append(one.name)
            continue
        value = values.get(one.name)
        if value is None or value.shape() != one.shape:
            found = "nothing" if value is None else str(value.shape())
            raise CheckpointError("shape_mismatch", f"{strategy}: {one.name} is {found}, not {one.shape}")
        binding.bind_ortvalue_input(one.name, value)
    return _Ranking(session, binding, tuple(inputs), values)


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
