"""Servers that rank without exploring, each as its makers would have it, all with one worker on one thread.

    ranking    what they share: our encoder, the plain network, best first
    lit        LitServe
    bento      BentoML
    pydantic   FastAPI as its tutorial has it
    bare       a FastAPI handler that reads the raw body with msgspec

Each takes the body that `/v1/rank` takes and answers {"items": [{"id", "score"}, ...]}.
"""

from collections.abc import Mapping
from typing import NamedTuple

#: Environment variable with the folder of `ranking.save`.
FOLDER = "BENCH_FOLDER"


class Rival(NamedTuple):
    """How a server is started and asked."""

    title: str
    module: str  # that it needs
    command: tuple[str, ...]  # after the interpreter; {port} is filled in
    ready: str  # answered 200 when it works
    path: str  # of a ranking


def _uvicorn(app: str) -> tuple[str, ...]:
    # uvicorn takes uvloop and httptools where they are installed, as they are with us
    return (
        "-m",
        "uvicorn",
        f"scripts.bench.rivals.{app}",
        "--port",
        "{port}",
        "--no-access-log",
        "--log-level",
        "error",
    )


RIVALS: Mapping[str, Rival] = {
    "litserve": Rival("LitServe", "litserve", ("-m", "scripts.bench.rivals.lit", "{port}"), "/health", "/predict"),
    "bentoml": Rival(
        "BentoML",
        "bentoml",
        ("-m", "bentoml", "serve", "scripts.bench.rivals.bento:Rank", "--host", "127.0.0.1", "--port", "{port}"),
        "/readyz",
        "/rank",
    ),
    "pydantic": Rival("FastAPI, pydantic", "fastapi", _uvicorn("pydantic:app"), "/health", "/rank"),
    "bare": Rival("FastAPI, msgspec", "fastapi", _uvicorn("bare:app"), "/health", "/rank"),
}
