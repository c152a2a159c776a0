"""Every answer held to the version that it names: computed again from its checkpoint."""

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import msgspec
import numpy as np

from models.noise import seed_of
from models.types import Array
from scripts.bench.work import CANDIDATES, LANE, STRATEGIES
from service.checkpoints import Manifest, Store
from service.scoring.engines import Kind
from service.scoring.loading import load as load_version
from service.scoring.ranking import Loaded, Terms, encode_rows, rank
from service.scoring.schemas import RankResponse

STRATEGY = "age_ts"  # of all requests
#: Our engine on the same machine gives the same bits; JSON keeps them.
TOLERANCE = 1e-6

decode = msgspec.json.Decoder(RankResponse).decode


class Exact:
    """What each version answers to each request, from its checkpoint."""

    def __init__(self, store: Store, manifests: Sequence[Manifest], bodies: Sequence[bytes], engine: Kind) -> None:
        read = partial(load_version, store, kind=engine, threads=1, lane=LANE, strategies=STRATEGIES, max_items=1)
        loaded = [read(manifest.version) for manifest in manifests]
        self._scores = dict(asyncio.run(_ranked(one, body)) for one in loaded for body in bodies)

    def inconsistent(self, answers: Sequence[bytes]) -> int:
        """How many answers have not the items and scores of the version that they name."""
        return sum(not self._holds(one) for one in map(decode, answers))

    def _holds(self, answer: RankResponse) -> bool:
        expected = self._scores.get((answer.model.version, answer.request_id))
        if expected is None or [one.id for one in answer.items] != expected.ids:
            return False
        return np.allclose([one.score for one in answer.items], expected.scores, rtol=0.0, atol=TOLERANCE)


class _Ranked(NamedTuple):
    ids: list[str]  # best first
    scores: Array  # of each


async def _ranked(loaded: Loaded, body: bytes) -> tuple[tuple[int, str], _Ranked]:
    """((version, request id), what is to be answered)."""
    request = loaded.decoder.decode(body, max_candidates=max(CANDIDATES))
    assert request.request_id is not None, "all our requests have one"
    rows = encode_rows(loaded, request)
    terms = Terms(request.request_id, STRATEGY, None, seed_of(request.request_id), len(request.candidates))
    ranking = await rank(loaded, rows, terms, check=lambda: None)
    order = ranking.slate.order
    ranked = _Ranked([rows.ids[place] for place in order], ranking.scores.score[order])
    return (loaded.manifest.version, request.request_id), ranked
