"""Connections as uvicorn serves them, without its patience: who is slow, or silent, holds none for long."""

import asyncio
import re
from collections.abc import Callable, Sized
from typing import Any, Literal, NamedTuple

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_BEFORE = len(b"\r\nupgrade")  # all of it but the colon


class Limits(NamedTuple):
    """What one connection may take."""

    head_s: float  # from the first byte of a request to the end of its headers
    answer_s: float  # to read what was answered
    head_bytes: int  # of one request's headers
    body_bytes: int  # of a body that comes after its answer, and is thrown away


class Connection(HttpToolsProtocol):
    """One connection. The body's time is the route's business (`patience`).

    uvicorn itself knows one limit, the time without a byte after an answer: a caller who sends a byte now and then, or
    who does not read, has all the time in the world.

    Attributes:
        on_leave: called when the caller hangs up; a request finds the connection as `request.state.caller`.
    """

    def __init__(self, limits: Limits, **given: Any) -> None:
        super().__init__(**given)
        self.on_leave: Callable[[], object] | None = None
        self._limits = limits
        self._reads: Literal["nothing", "head", "body"] = "nothing"
        self._begun = False  # a request, in what was received last
        self._before = b""  # the last that was received, where it ended within a head
        self._head_bytes = self._ignored_bytes = 0
        self._head, self._answer = _Timer(), _Timer()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._head.stop()
        self._answer.stop()
        super().connection_lost(exc)
        if self.on_leave is not None:
            self.on_leave()

    def data_received(self, data: bytes) -> None:
        self._begun = False
        super().data_received(data if self._reads == "body" else _without_upgrade(data, self._before))
        self._before = (self._before + data)[-_BEFORE:] if self._reads == "head" else b""
        if self.transport.is_closing():
            return
        if self._reads == "head":
            # Of data in which a head begins the most may be requests before it.
            read = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
            self._head_bytes += read if self._begun else len(data)
            if self._head_bytes > self._limits.head_bytes:
                self.send_400_response("The headers are too large.")
                return
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering and self._reads != "head":
            self._head.stop()
        else:
            self._head.start(self.loop, self._limits.head_s, self.transport.abort)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._reads, self._begun, self._head_bytes, self._ignored_bytes = "head", True, 0, 0
        self.scope["state"]["caller"] = self

    def on_headers_complete(self) -> None:
        self._reads = "body"
        super().on_headers_complete()
        if self.app_state.get("draining"):
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if self.cycle.response_complete:
            self._ignored_bytes += len(body)
            if self._ignored_bytes > self._limits.body_bytes:
                self.transport.abort()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._reads = "nothing"
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.transport.is_closing():
            self._wait_for_reader()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._wait_for_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._wait_for_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._answer.stop()

    def _wait_for_reader(self) -> None:
        """A connection that is closed, too, stays until its last byte is read."""
        self._answer.start(self.loop, self._limits.answer_s, self.transport.abort)


class _Flow(FlowControl):
    """Reads nothing more while requests wait for their turn: a caller could heap them up in memory without end.

    Args:
        waiting: those requests.
    """

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting:
            super().resume_reading()


def _without_upgrade(data: bytes, before: bytes) -> bytes:
    """The same without the wish for another protocol in its head: the parser would take the body for that protocol.

    Clients ask so by default that send plain HTTP/1.1 all the same, such as Java's. The parser may have a part of the
    header's name already, of what came `before`; so the name is made a longer one, which means nothing.
    """
    known, whole = len(before), before + data
    end = whole.find(b"\r\n\r\n", max(known - 3, 0)) % (len(whole) + 1)
    found = _UPGRADE.search(whole, 0, end)
    return data if found is None else whole[known : found.end() - 1] + b"-ignored:" + whole[found.end() :]


class _Timer:
    def __init__(self) -> None:
        self._handle: asyncio.TimerHandle | None = None

    def start(self, loop: asyncio.AbstractEventLoop, after_s: float, call: Callable[[], None]) -> None:
        """Unless it runs."""
        if self._handle is None:
            self._handle = loop.call_later(after_s, call)

    def stop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
