"""The outermost layer: admission, request metrics, and the answer to what nobody expected."""

import time
from collections import Counter
from collections.abc import Collection

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Internal, Unavailable
from service.scoring import problems
from service.telemetry import ScorerMetrics

_CLIENT_CLOSED = 499  # nginx's number for a caller who did not wait: counted, never sent

_log = structlog.get_logger()


class Guard:
    """ASGI middleware.

    Args:
        app: what it guards.
        limited: paths of routes whose requests are work, with at most one {parameter}, at their end. Each has a limit
            of its own: a Redis that hangs holds up events, and no ranking.
        max_in_flight: requests that one of them answers at a time; the next is refused unread.
    """

    def __init__(self, app: ASGIApp, *, limited: Collection[str], max_in_flight: int, metrics: ScorerMetrics) -> None:
        self._app, self._metrics = app, metrics
        self._limited, self._max_in_flight = {one for one in limited if "{" not in one}, max_in_flight
        self._prefixes = {one.partition("{")[0]: one for one in limited if "{" in one}
        self._in_flight: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._metrics.in_flight.inc()
        try:
            await self._admit(scope, receive, watch)
        except ClientDisconnect:
            status = _CLIENT_CLOSED
        except Exception:
            _log.exception("unexpected fault", path=scope["path"])
            if not status:
                fault = Internal("internal", "an unexpected fault; the service's log has it")
                await problems.response(fault, scope["path"])(scope, receive, watch)
        finally:
            self._metrics.in_flight.dec()
            # A route's template, never any path that somebody asks for: a label must stay bounded.
            route = getattr(scope.get("route"), "path", None) or self._work(scope["path"]) or "none"
            self._metrics.requests.labels(route, str(status or _CLIENT_CLOSED)).inc()
            self._metrics.latency.labels(route).observe(time.perf_counter() - started)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, work = scope["path"], self._work(scope["path"])
        if work is None:
            await self._app(scope, receive, send)
        elif self._in_flight[work] >= self._max_in_flight:
            self._metrics.shed.labels("overloaded").inc()
            refusal = Unavailable("overloaded", f"{self._max_in_flight} requests are being answered already")
            await problems.response(refusal, path)(scope, receive, send)
        else:
            self._in_flight[work] += 1
            try:
                await self._app(scope, receive, send)
            finally:
                self._in_flight[work] -= 1

    def _work(self, path: str) -> str | None:
        """The limited route of a path; None where there is none."""
        if path in self._limited:
            return path
        return next((route for prefix, route in self._prefixes.items() if path.startswith(prefix)), None)
