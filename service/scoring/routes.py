"""HTTP: which path does what. The work is done elsewhere; here requests are read, timed out and answered."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from fastapi.routing import APIRoute
from msgspec import Struct
from prometheus_client.exposition import choose_encoder

from service.errors import NotFound, TooLarge, Unavailable
from service.scoring import schemas, status
from service.scoring.feedback import Feedback
from service.scoring.item_edits import ItemEdits
from service.scoring.openapi import operation
from service.scoring.outbox import Outbox
from service.scoring.ranker import Ranker
from service.scoring.schemas import EventsRequest, EventsResponse, RankRequest, RankResponse
from service.telemetry import ScorerMetrics


class Direct(APIRoute):
    """A route without parameters for FastAPI to solve: its handler is the endpoint. That halves its cost."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        return self.endpoint


router = APIRouter(route_class=Direct)

#: Paths whose requests are work: `guard` limits how many are in flight.
LIMITED = ("/v1/rank", "/v1/events")


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """What the routes work with. Made by `app`, handed to each request as `request.state.scorer`.

    Args:
        ranker, feedback, items, outbox, metrics: see there.
        deadline_s: how long a request may wait before it is worked on.
        max_body_bytes: of a request.
    """

    ranker: Ranker
    feedback: Feedback
    items: ItemEdits
    outbox: Outbox
    metrics: ScorerMetrics
    deadline_s: float
    max_body_bytes: int

    @asynccontextmanager
    async def deadline(self) -> AsyncIterator[None]:
        """Raises Unavailable deadline_exceeded where what is awaited within takes too long."""
        try:
            async with asyncio.timeout(self.deadline_s):
                yield
        except TimeoutError:
            self.metrics.shed.labels("deadline_exceeded").inc()
            raise Unavailable("deadline_exceeded", f"it waited longer than {self.deadline_s:g} s") from None

    async def body(self, request: Request) -> bytes:
        """Raises TooLarge body_too_large as soon as that is known."""
        refusal = TooLarge("body_too_large", f"at most {self.max_body_bytes} bytes are read")
        if int(request.headers.get("Content-Length", 0)) > self.max_body_bytes:
            raise refusal
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self.max_body_bytes:
                raise refusal
        return bytes(body)


@router.post(
    "/v1/rank",
    **operation("Rank candidates", RankResponse, body=RankRequest, refusals=(400, 413, 422, 503)),
)
async def rank(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    async with scorer.deadline():
        body = await scorer.body(request)
        return _json(await scorer.ranker.rank(body))


@router.post(
    "/v1/events",
    **operation("Report events", EventsResponse, body=EventsRequest, code=202, refusals=(400, 413, 422, 503)),
)
async def events(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    async with scorer.deadline():
        body = await scorer.body(request)
    return _json(await scorer.feedback.post(body), 202)


@router.get("/v1/models/current", **operation("The version that serves", status.ModelSummary, refusals=(503,)))
async def current_model(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    return _answer(status.summarise(scorer.ranker.ready()))


@router.get("/livez", **operation("Whether the process answers", status.Live))
async def livez(_: Request) -> Response:
    return _answer(status.Live())


@router.get("/readyz", **operation("Whether a model is loaded", status.Ready, refusals=(503,)))
async def readyz(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    version = scorer.ranker.ready().manifest.version
    degraded: list[status.Degraded] = [] if scorer.outbox.available else ["log_unavailable"]
    degraded += [] if scorer.ranker.ready().items.complete else ["items_loading"]
    return _answer(status.Ready(lane=scorer.ranker.lane, version=version, degraded=degraded))


@router.get("/v2/health/live", **operation("Open Inference Protocol: live", status.ServerLive))
async def server_live(_: Request) -> Response:
    return _answer(status.ServerLive())


@router.get("/v2/health/ready", **operation("Open Inference Protocol: ready", status.ServerReady, refusals=(503,)))
async def server_ready(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    scorer.ranker.ready()
    return _answer(status.ServerReady())


@router.get(
    "/v2/models/{name}",
    **operation(
        "Open Inference Protocol: a model", status.ModelMetadata, refusals=(404, 503), parameters={"name": str}
    ),
)
async def model_metadata(request: Request) -> Response:
    name, scorer = _model(request)
    version = scorer.ranker.ready().manifest.version
    return _answer(status.ModelMetadata(name=name, versions=[str(version)]))


@router.get(
    "/v2/models/{name}/ready",
    **operation(
        "Open Inference Protocol: model ready", status.ModelReady, refusals=(404, 503), parameters={"name": str}
    ),
)
async def model_ready(request: Request) -> Response:
    name, scorer = _model(request)
    scorer.ranker.ready()
    return _answer(status.ModelReady(name=name))


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    encode, media_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(scorer.metrics.registry), media_type=media_type)


def _model(request: Request) -> tuple[str, Scorer]:
    """The model that the path names. Raises NotFound: there is one a lane."""
    scorer: Scorer = request.state.scorer
    name: str = request.path_params["name"]
    if name != scorer.ranker.lane:
        raise NotFound("not_found", f"no model {name!r}; this scorer serves {scorer.ranker.lane!r}")
    return name, scorer


def _answer(struct: Struct) -> Response:
    return _json(schemas.encode(struct))


def _json(body: bytes, code: int = 200) -> Response:
    return Response(body, code, media_type="application/json")
