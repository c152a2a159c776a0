"""The least that a FastAPI server can be: its handler reads the raw body with msgspec, into typed features at that."""

from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response

from scripts.bench.rivals.ranking import GreedyRanking

ranking = GreedyRanking()


class Item(msgspec.Struct):
    id: str
    score: float


class RankResponse(msgspec.Struct):
    items: list[Item]


def _request_type() -> type[Any]:
    """The body, its features as the structs that our encoder takes soonest."""
    rows = ranking.encoder.rows
    sides = [
        msgspec.defstruct(name, [("features", features), ("id", str | None, None)])
        for name, features in (("User", rows.user), ("Context", rows.context), ("Candidate", rows.item))
    ]
    fields = [("user", sides[0]), ("context", sides[1]), ("candidates", list[sides[2]])]  # type: ignore[valid-type]
    return msgspec.defstruct("RankRequest", fields)


app = FastAPI()
decoder = msgspec.json.Decoder(_request_type())
encode = msgspec.json.Encoder().encode


@app.get("/health")
async def health() -> str:
    return "ok"


@app.post("/rank")
async def rank(request: Request) -> Response:
    body = decoder.decode(await request.body())
    candidates = body.candidates
    ranked = ranking(
        body.user.features, body.context.features, [one.id for one in candidates], [one.features for one in candidates]
    )
    answer = RankResponse([Item(*one) for one in ranked])
    return Response(encode(answer), media_type="application/json")
