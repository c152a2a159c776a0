"""FastAPI as its tutorial has it: pydantic models in, pydantic models out."""

from fastapi import FastAPI
from pydantic import BaseModel

from scripts.bench.rivals.body import RankRequest
from scripts.bench.rivals.ranking import GreedyRanking


class Item(BaseModel):
    id: str
    score: float


class RankResponse(BaseModel):
    items: list[Item]


app = FastAPI()
ranking = GreedyRanking()


@app.get("/health")
async def health() -> str:
    return "ok"


@app.post("/rank")
async def rank(request: RankRequest) -> RankResponse:
    candidates = request.candidates
    ranked = ranking(
        request.user.features,
        request.context.features,
        [one.id for one in candidates],
        [one.features for one in candidates],
    )
    return RankResponse(items=[Item(id=one, score=score) for one, score in ranked])
