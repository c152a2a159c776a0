"""The body of a request as pydantic reads it, for the rivals that have it read so."""

from pydantic import BaseModel


class Side(BaseModel):
    id: str | None = None
    features: dict[str, str]


class Candidate(BaseModel):
    id: str
    features: dict[str, str]


class RankRequest(BaseModel):
    request_id: str
    user: Side
    context: Side
    candidates: list[Candidate]
