"""The admin port: the versions of the lane, over HTTP and by hand, for who has the token."""

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib import metadata
from typing import TypeVar

import msgspec
import redis.asyncio
import structlog
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from redis.exceptions import RedisError
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.types import ASGIApp, Receive, Scope, Send

from service import appends, lanes
from service.checkpoints import Store
from service.errors import NotFound, Unauthorized, Unavailable
from service.events import Announcement
from service.scoring import openapi, problems, schemas
from service.scoring.admin_schemas import Activation
from service.scoring.openapi import operation
from service.scoring.problems import Problem
from service.scoring.routes import Direct, read_body
from service.scoring.tasks import step_aside
from service.streams import StreamNames

T = TypeVar("T")

MAX_BODY_BYTES = 4 * 1024
_LANE = "/v1/models/{lane}"
_OF_LANE, _OF_VERSION = {"lane": str}, {"lane": str, "version": int}
_REFUSED = (401, 404, 503)


class _Number(IntegerConvertor):
    """Of a version: no longer than they are, for to read one of thousands of digits is an error."""

    regex = "[0-9]{1,12}"


register_url_convertor("version", _Number())

_log = structlog.get_logger()
_activation = msgspec.json.Decoder(Activation)

router = APIRouter(route_class=Direct)


@dataclass(frozen=True, kw_only=True)
class Admin:
    """What the routes work with, as `request.app.state.admin`.

    One thread asks the store, so that versions are looked at one after the other, whoever asks and however often: the
    process has requests to rank.

    Args:
        store: of the lane's checkpoints.
        lane: its name.
        client: tells the scorers.
        names: of the streams.
        maxlen: about how many announcements Redis keeps.
    """

    store: Store
    lane: str
    client: redis.asyncio.Redis
    names: StreamNames
    maxlen: int
    _asking: ThreadPoolExecutor = field(
        default_factory=lambda: ThreadPoolExecutor(1, "admin", initializer=step_aside), init=False, repr=False
    )

    async def choose(self, request: Request, choice: Callable[[], lanes.Choice]) -> Response:
        """Changes what serves, and answers with it."""
        chosen = await self.ask(request, choice)
        _log.warning("chosen by hand", path=request.scope["path"], **msgspec.to_builtins(chosen))
        await self._announce(chosen.version)
        return _json(chosen)

    async def ask(self, request: Request, call: Callable[[], T]) -> T:
        """What a call of the store returns. Raises NotFound, another lane; Unavailable store_unavailable."""
        lane = request.path_params["lane"]
        if lane != self.lane:
            raise NotFound("not_found", f"no model {lane!r}; this scorer serves {self.lane!r}")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._asking, call)
        except OSError as error:
            raise Unavailable("store_unavailable", f"the checkpoints cannot be reached: {error}") from None

    async def _announce(self, version: int) -> None:
        """The scorers look for themselves, too."""
        try:
            announcement = Announcement(lane=self.lane, version=version)
            await appends.announce(self.client, self.names, announcement, maxlen=self.maxlen)
        except RedisError as error:
            _log.warning("version not announced", version=version, error=str(error))


def create_admin(admin: Admin, token: str) -> FastAPI:
    """The app of the admin port."""
    app = FastAPI(
        title="agerank admin",
        description="The versions of a lane, by hand. Every request carries the token: `Authorization: Bearer TOKEN`.",
        version=metadata.version("agerank"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.admin = admin
    app.router.routes += router.routes
    app.add_middleware(_Gate, token=token)
    problems.install(app)
    openapi.install(app, [lanes.Versions, lanes.VersionDetail, lanes.Choice, Activation, Problem], bearer=True)
    return app


class _Gate:
    """Lets nobody in without the token, and says to nobody how near his guess was."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._expected = app, _digest(token.encode())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._knows(scope):
            refusal = Unauthorized("unauthorized", "this port wants `Authorization: Bearer` and its token")
            await problems.response(refusal, scope["path"], {"WWW-Authenticate": "Bearer"})(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, token = given.partition(b" ")
        return hmac.compare_digest(_digest(token.strip()), self._expected) and scheme.lower() == b"bearer"


def _digest(token: bytes) -> bytes:
    """All are of one length, so that comparing takes one time."""
    return hashlib.sha256(token).digest()


@router.get(f"{_LANE}/versions", **operation("All versions", lanes.Versions, refusals=_REFUSED, parameters=_OF_LANE))
async def versions(request: Request) -> Response:
    admin = _admin(request)
    return _json(await admin.ask(request, lambda: lanes.overview(admin.store, admin.lane)))


@router.get(
    f"{_LANE}/versions/{{version:version}}",
    **operation("A version, verified", lanes.VersionDetail, refusals=(*_REFUSED, 409), parameters=_OF_VERSION),
)
async def version(request: Request) -> Response:
    admin, number = _admin(request), request.path_params["version"]
    return _json(await admin.ask(request, lambda: lanes.detail(admin.store, number)))


@router.post(
    f"{_LANE}/versions/{{version:version}}:activate",
    **operation(
        "Make a version current",
        lanes.Choice,
        body=Activation,
        needs_body=False,
        refusals=(400, *_REFUSED, 409, 413, 422),
        parameters=_OF_VERSION,
    ),
)
async def activate(request: Request) -> Response:
    admin, number = _admin(request), request.path_params["version"]
    body = await read_body(request, MAX_BODY_BYTES)
    how = schemas.decode(body or b"{}", _activation)
    return await admin.choose(request, lambda: lanes.activate(admin.store, number, pin=how.pin, force=how.force))


@router.post(
    f"{_LANE}/rollback",
    **operation("Go back to the version before", lanes.Choice, refusals=(*_REFUSED, 409), parameters=_OF_LANE),
)
async def rollback(request: Request) -> Response:
    admin = _admin(request)
    return await admin.choose(request, lambda: lanes.rollback(admin.store))


@router.post(
    f"{_LANE}/pin",
    **operation("Hold on to the current version", lanes.Choice, refusals=(*_REFUSED, 409), parameters=_OF_LANE),
)
async def pin(request: Request) -> Response:
    admin = _admin(request)
    return await admin.choose(request, lambda: lanes.pin(admin.store, True))


@router.post(
    f"{_LANE}/unpin",
    **operation("Let the trainer's next version serve", lanes.Choice, refusals=(*_REFUSED, 409), parameters=_OF_LANE),
)
async def unpin(request: Request) -> Response:
    admin = _admin(request)
    return await admin.choose(request, lambda: lanes.pin(admin.store, False))


def _admin(request: Request) -> Admin:
    admin: Admin = request.app.state.admin
    return admin


def _json(struct: msgspec.Struct) -> Response:
    return Response(schemas.encode(struct), media_type="application/json")
