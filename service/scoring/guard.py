"""The outermost layer: admission, request metrics, and the answer to what nobody expected."""

import time
from collections import Counter
from collections.abc import Collection
from functools import cache

import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Unavailable
from service.scoring import problems
from service.telemetry import ScorerMetrics

_CLIENT_CLOSED = 499  # nginx's number for a caller who did not wait: counted, never sent

_log = structlog.get_logger()


class Guard:
    """ASGI middleware.

    A request has a place among those being answered while there is work to do for it: neither while its caller takes
    time to send the body, nor while he takes time to read the answer. So callers who are slow keep nobody out.

    Args:
        app: what it guards.
        limited: paths of routes whose requests are work, with at most one {parameter}, at their end. Each has a limit
            of its own: a Redis that hangs holds up events, and no ranking.
        max_in_flight: requests that one of them answers at a time; the next is refused unread.
        max_unread_bytes: of all bodies that have not come to their end; more is refused.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        limited: Collection[str],
        max_in_flight: int,
        max_unread_bytes: int,
        metrics: ScorerMetrics,
    ) -> None:
        self._app = app
        self._limited = {one for one in limited if "{" not in one}
        self._prefixes = {one.partition("{")[0]: one for one in limited if "{" in one}
        self._places = _Places(max_in_flight, max_unread_bytes, metrics)
        self._answering = 0
        metrics.in_flight.set_function(lambda: self._answering)
        # Labels are looked up once: a request has no time for it.
        self._requests, self._latency = cache(metrics.requests.labels), cache(metrics.latency.labels)

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

        self._answering += 1
        try:
            await self._admit(scope, receive, watch)
        except ClientDisconnect:
            status = _CLIENT_CLOSED
        except Exception:
            _log.exception("unexpected fault", path=scope["path"])
            if not status:
                await problems.fault(scope["path"])(scope, receive, watch)
        finally:
            self._answering -= 1
            # A route's template, never any path that somebody asks for: a label must stay bounded.
            route = getattr(scope.get("route"), "path", None) or self._work(scope["path"]) or "none"
            self._requests(route, str(status or _CLIENT_CLOSED)).inc()
            self._latency(route).observe(time.perf_counter() - started)

    async def _admit(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, work = scope["path"], self._work(scope["path"])
        if work is None:
            await self._app(scope, receive, send)
            return
        place = _Place(self._places, work)

        async def read() -> Message:
            place.give_back()
            message = await receive()
            place.heard(message)
            return message

        async def answer(message: Message) -> None:
            place.give_back()
            await send(message)

        try:
            place.take()
        except Unavailable as refusal:
            await problems.response(refusal, path)(scope, receive, send)
            return
        try:
            await self._app(scope, read, answer)
        finally:
            place.leave()

    def _work(self, path: str) -> str | None:
        """The limited route of a path; None where there is none."""
        if path in self._limited:
            return path
        return next((route for prefix, route in self._prefixes.items() if path.startswith(prefix)), None)


class _Places:
    """How many requests of each route are being answered, and how much of the others is already here."""

    def __init__(self, most: int, max_unread_bytes: int, metrics: ScorerMetrics) -> None:
        self.most, self.max_unread_bytes = most, max_unread_bytes
        self.taken: Counter[str] = Counter()
        self.unread_bytes = 0
        self._overloaded = metrics.shed.labels("overloaded")

    def refuse(self, why: str) -> None:
        """Raises Unavailable overloaded."""
        self._overloaded.inc()
        raise Unavailable("overloaded", why)


class _Place:
    """One request's."""

    def __init__(self, places: _Places, work: str) -> None:
        self._places, self._work = places, work
        self._taken, self._bytes = False, 0

    def take(self) -> None:
        """Raises Unavailable overloaded."""
        if self._places.taken[self._work] >= self._places.most:
            self._places.refuse(f"{self._places.most} requests are being answered already")
        self._places.taken[self._work] += 1
        self._taken = True

    def give_back(self) -> None:
        if self._taken:
            self._taken = False
            self._places.taken[self._work] -= 1

    def heard(self, message: Message) -> None:
        """A part of the body has come: with the last one there is work to do. Raises Unavailable overloaded."""
        size = len(message.get("body", b""))
        self._bytes += size
        self._places.unread_bytes += size
        if message.get("more_body", False):
            if self._places.unread_bytes > self._places.max_unread_bytes:
                self._places.refuse("too many bytes of unfinished requests wait for their end")
        elif message["type"] == "http.request":
            self._forget()
            self.take()

    def leave(self) -> None:
        self.give_back()
        self._forget()

    def _forget(self) -> None:
        self._places.unread_bytes -= self._bytes
        self._bytes = 0
