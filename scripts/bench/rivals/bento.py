"""BentoML: `python -m bentoml serve scripts.bench.rivals.bento:Rank`."""

from typing import Any

import bentoml

from scripts.bench.rivals.body import RankRequest
from scripts.bench.rivals.ranking import GreedyRanking


@bentoml.service(workers=1, logging={"access": {"enabled": False}})
class Rank:
    def __init__(self) -> None:
        self.ranking = GreedyRanking()

    @bentoml.api(input_spec=RankRequest)
    async def rank(self, **request: Any) -> dict[str, Any]:
        candidates = request["candidates"]
        ranked = self.ranking(
            request["user"].features,
            request["context"].features,
            [one.id for one in candidates],
            [one.features for one in candidates],
        )
        return {"items": [{"id": one, "score": score} for one, score in ranked]}
