"""HTTP: which path does what. The work is done elsewhere; here requests are read, timed out and answered."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response
from fastapi.routing import APIRoute
from msgspec import Meta, Struct
from prometheus_client import Counter
from prometheus_client.exposition import choose_encoder
from starlette.requests import ClientDisconnect

from service.errors import BadRequest, NotFound, TooLarge, Unavailable
from service.scoring import schemas, status
from service.scoring.feedback import Feedback
from service.scoring.item_edits import ItemEdits
from service.scoring.openapi import operation
from service.scoring.outbox import Outbox
from service.scoring.patience import Patience
from service.scoring.ranker import Ranker
from service.scoring.ranking import Loaded
from service.scoring.schemas import EventsRequest, EventsResponse, RankRequest, RankResponse
from service.telemetry import ScorerMetrics


class Direct(APIRoute):
    """A route without parameters for FastAPI to solve: its handler is the endpoint. That halves its cost."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        return self.endpoint


router = APIRouter(route_class=Direct)

#: The header by which a caller says that he waits for less than `deadline_s`.
DEADLINE = "X-Deadline-Ms"
PATIENCE = {DEADLINE: Annotated[int, Meta(ge=1, lt=10**9)]}

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

    def patience(self, request: Request) -> Patience:
        """How long the caller waits. Raises BadRequest invalid_header."""
        limit_s, given = self.deadline_s, _header(request, DEADLINE.lower().encode())
        if given is not None:
            if not given.isdigit() or len(given) > 9 or int(given) == 0:
                raise BadRequest(
                    "invalid_header", f"{DEADLINE} must be a whole number of milliseconds, from 1 to 999999999"
                )
            limit_s = min(limit_s, int(given) / 1e3)
        return Patience(limit_s, request.scope["state"].get("caller"), self.exceeded)

    @cached_property
    def exceeded(self) -> Counter:
        """Looked up once: a request has no time for it."""
        return self.metrics.shed.labels("deadline_exceeded")

    async def body(self, request: Request) -> bytes:
        """Raises TooLarge body_too_large as soon as that is known."""
        return await read_body(request, self.max_body_bytes)


async def read_body(request: Request, most: int) -> bytes:
    """At most so many bytes. Raises TooLarge body_too_large as soon as it is known that there are more."""
    refusal = TooLarge("body_too_large", f"at most {most} bytes are read")
    if int(_header(request, b"content-length") or 0) > most:
        raise refusal
    parts, size, more = [], 0, True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size, more = size + len(parts[-1]), message.get("more_body", False)
        if size > most:
            raise refusal
    return b"".join(parts)  # which copies nothing where there is one


def _header(request: Request, name: bytes) -> bytes | None:
    """The first of that name, which is in lower case."""
    headers: list[tuple[bytes, bytes]] = request.scope["headers"]
    return next((value for one, value in headers if one == name), None)


@router.post(
    "/v1/rank",
    **operation("Rank candidates", RankResponse, body=RankRequest, refusals=(400, 413, 422, 503), headers=PATIENCE),
)
async def rank(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    async with scorer.patience(request) as patience:
        body = await scorer.body(request)
        answer = await scorer.ranker.rank(body, check=patience.check)
    return _json(answer)


@router.post(
    "/v1/events",
    **operation(
        "Report events",
        EventsResponse,
        body=EventsRequest,
        code=202,
        refusals=(400, 413, 422, 503),
        headers=PATIENCE,
    ),
)
async def events(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    async with scorer.patience(request) as patience:
        body = await scorer.body(request)
    return _json(await scorer.feedback.post(body, within_s=patience.left_s()), 202)


#: For `shortcut`.
BUSY = {("POST", "/v1/rank"): rank, ("POST", "/v1/events"): events}


@router.get("/v1/models/current", **operation("The version that serves", status.ModelSummary, refusals=(503,)))
async def current_model(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    return _answer(status.summarise(scorer.ranker.ready()))


@router.get("/livez", **operation("Whether the process answers", status.Live))
async def livez(_: Request) -> Response:
    return _answer(status.Live())


@router.get("/readyz", **operation("Whether a model is loaded", status.Ready, refusals=(503,)))
async def readyz(request: Request) -> Response:
    scorer, loaded = request.state.scorer, _ready(request)
    degraded: list[status.Degraded] = [] if scorer.outbox.available else ["log_unavailable"]
    degraded += [] if loaded.items.complete else ["items_loading"]
    return _answer(status.Ready(lane=scorer.ranker.lane, version=loaded.manifest.version, degraded=degraded))


@router.get("/v2/health/live", **operation("Open Inference Protocol: live", status.ServerLive))
async def server_live(_: Request) -> Response:
    return _answer(status.ServerLive())


@router.get("/v2/health/ready", **operation("Open Inference Protocol: ready", status.ServerReady, refusals=(503,)))
async def server_ready(request: Request) -> Response:
    _ready(request)
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
    name, _ = _model(request)
    _ready(request)
    return _answer(status.ModelReady(name=name))


@router.get("/metrics", summary="Prometheus metrics", response_class=PlainTextResponse)
async def metrics(request: Request) -> Response:
    scorer: Scorer = request.state.scorer
    try:
        encode, media_type = choose_encoder(request.headers.get("Accept", ""))
    except (TypeError, ValueError):  # of a version that is none
        encode, media_type = choose_encoder("")
    return Response(encode(scorer.metrics.registry), media_type=media_type)


def _ready(request: Request) -> Loaded:
    """What serves. Raises Unavailable: not_ready, or draining, for who asks would send requests."""
    if request.state.draining:
        raise Unavailable("draining", "the scorer is about to stop: send requests elsewhere")
    scorer: Scorer = request.state.scorer
    return scorer.ranker.ready()


def _model(request: Request) -> tuple[str, Scorer]:
    """The model that the path names. Raises NotFound: there is one a lane."""
    scorer: Scorer = request.state.scorer
    name: str = request.path_params["name"]
    if name != scorer.ranker.lane:
        raise NotFound("not_found", f"no model {name!r}; this scorer serves {scorer.ranker.lane!r}")
    return name, scorer


def _answer(struct: Struct) -> Response:
    return _json(schemas.encode(struct))


class _Json(Response):
    """Made in less time than its base, which looks for headers that nobody gave."""

    def __init__(self, body: bytes, code: int) -> None:
        self.body, self.status_code, self.background = body, code, None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]


def _json(body: bytes, code: int = 200) -> Response:
    return _Json(body, code)
