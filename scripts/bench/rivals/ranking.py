"""What all rivals do alike: rows of our encoder through the plain network, best first. No torch."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.features import Encoder, Features, Row
from models.spec import FeatureSpec
from scripts.bench.plain import PlainNetwork
from scripts.bench.rivals import FOLDER

_SPEC, _GRAPH = "features.toml", "plain.onnx"


def save(folder: Path, *, spec: str, graph: bytes) -> None:
    """Where a rival will look for them."""
    (folder / _SPEC).write_text(spec, encoding="utf-8")
    (folder / _GRAPH).write_bytes(graph)


class GreedyRanking:
    """The model of a rival, from the folder that the environment names."""

    def __init__(self) -> None:
        folder = Path(os.environ[FOLDER])
        self.encoder = Encoder(FeatureSpec.from_toml((folder / _SPEC).read_text(encoding="utf-8")))
        self._network = PlainNetwork((folder / _GRAPH).read_bytes())

    def __call__(
        self, user: Features | Row, context: Features | Row, ids: Sequence[str], items: Sequence[Features | Row]
    ) -> list[tuple[str, float]]:
        """(id, score) of each candidate, best first."""
        batch = self.encoder.batch(ids, items, user=user, context=context)
        scores = self._network(batch.context_index, batch.item_index)
        order = np.argsort(-scores)
        return [(ids[place], score) for place, score in zip(order.tolist(), scores[order].tolist(), strict=True)]

    def of_json(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a decoded body."""
        candidates = request["candidates"]
        ranked = self(
            request["user"]["features"],
            request["context"]["features"],
            [one["id"] for one in candidates],
            [one["features"] for one in candidates],
        )
        return {"items": [{"id": one, "score": score} for one, score in ranked]}
