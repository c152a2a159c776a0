"""The client: requests on kept connections, as fast as they are answered or at times that were fixed before.

A closed loop sends the next request when the last is answered, so it measures what a server can do. An open loop sends
at times drawn beforehand, as users come, and measures from the time a request should have left: a server that stalls is
charged with all who wait meanwhile.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import cast

import numpy as np
import uvloop

from models.types import Array

TIMEOUT_S = 60.0  # in which nothing at all is answered: then nothing more will be
CONNECTIONS = 48  # of an open loop; who finds none free waits, which counts
SPIN_S = 0.002  # timers of an event loop are as coarse as milliseconds: so long before its time a request is watched

_Finished = Callable[["_Connection", int, bytes], None]


@dataclass
class Outcome:
    """What came of a loop."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)  # seconds, of answers with status 200
    failures: Counter[str] = field(default_factory=Counter)
    answers: list[bytes] = field(default_factory=list)  # bodies, if they are wanted

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def quantile(self, q: float) -> float:
        """Of the latency, in seconds."""
        return float(np.quantile(self.latencies, q)) if self.latencies else float("nan")


def post(path: str, body: bytes) -> bytes:
    """A request, ready to be sent."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    )
    return head.encode() + b"\r\n" + body


def closed_loop(
    port: int, requests: Sequence[bytes], *, connections: int, seconds: float, keep: bool = False
) -> Outcome:
    """Sends the requests in a circle on so many connections.

    Args:
        keep: the bodies of the answers.
    """
    circle, end = cycle(requests), 0.0

    def supply() -> bytes | None:
        nonlocal end
        end = end or time.perf_counter() + seconds
        return next(circle) if time.perf_counter() < end else None

    return uvloop.run(_closed(port, supply, connections, keep))


def send_all(port: int, requests: Iterable[bytes], *, connections: int = 1) -> Outcome:
    """Sends each request once, and keeps the bodies of the answers."""
    left = iter(requests)
    return uvloop.run(_closed(port, lambda: next(left, None), connections, keep=True))


def open_loop(
    port: int,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    generator: np.random.Generator,
    keep: bool = False,
    answered: Callable[[bytes], None] | None = None,
) -> Outcome:
    """Sends the requests in a circle at `rate` a second, at times of a Poisson process; `answered` sees each body."""
    gaps = generator.exponential(1.0 / rate, size=max(1, round(rate * seconds)))
    return uvloop.run(_open(port, requests, np.cumsum(gaps), _Recorder(keep, answered)))


class _Connection(asyncio.Protocol):
    """One request at a time.

    Args:
        finished: is told status and body of each answer; 0 where the connection was lost.
    """

    def __init__(self, finished: _Finished) -> None:
        self._finished, self.busy = finished, False
        self._received = bytearray()
        self.due = 0.0  # when the request should have left

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def send(self, request: bytes, due: float) -> None:
        self.due, self.busy = due, True
        self.transport.write(request)

    def abort(self) -> None:
        """Ends it, and tells nobody."""
        self.busy = False
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self._received += data
        body = _body(self._received)
        if body is not None:
            status = int(self._received[9:12])
            self._received.clear()
            self.busy = False
            self._finished(self, status, body)

    def connection_lost(self, error: Exception | None) -> None:
        if self.busy:
            self.busy = False
            self._finished(self, 0, str(error or "the server closed the connection").encode())


def _body(received: bytearray) -> bytes | None:
    """Of an answer that is there as a whole."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, start = received[:end].lower(), end + 4
    place = head.find(b"content-length:")
    if place >= 0:
        length = int(head[place + 15 :].split(b"\r\n", 1)[0])
        return bytes(received[start : start + length]) if len(received) >= start + length else None
    return bytes(received[start:]) if received.endswith(b"\r\n0\r\n\r\n") else None  # chunked: no JSON has a bare CRLF


class _Recorder:
    """Notes answers."""

    def __init__(self, keep: bool, answered: Callable[[bytes], None] | None = None) -> None:
        self.outcome = Outcome()
        self._take = self.outcome.answers.append if keep else answered or (lambda body: None)
        self.last = 0.0  # when the newest answer came

    def end(self, started: float, missing: int) -> Outcome:
        self.outcome.seconds = self.last - started
        if missing:
            self.outcome.failures["no answer"] += missing
        return self.outcome

    def note(self, due: float, status: int, body: bytes) -> None:
        self.last = time.perf_counter()
        if status != 200:
            self.outcome.failures[f"status {status}: {body[:200].decode(errors='replace')}"] += 1
            return
        self.outcome.latencies.append(self.last - due)
        self._take(body)


async def _closed(port: int, supply: Callable[[], bytes | None], connections: int, keep: bool) -> Outcome:
    """supply: the next request, None when there are no more."""
    recorder, done, left = _Recorder(keep), asyncio.get_running_loop().create_future(), connections

    def send(connection: _Connection) -> None:
        nonlocal left
        request = None if connection.transport.is_closing() else supply()
        if request is not None:
            connection.send(request, time.perf_counter())
            return
        left -= 1
        if not left:
            done.set_result(None)

    def finished(connection: _Connection, status: int, body: bytes) -> None:
        recorder.note(connection.due, status, body)
        send(connection)

    opened = await _connect(port, connections, finished)
    started = time.perf_counter()
    for connection in opened:
        send(connection)
    missing = await _until(done, opened, recorder)
    return recorder.end(started, missing)


async def _open(port: int, requests: Sequence[bytes], times: Array, recorder: _Recorder) -> Outcome:
    left, done = len(times), asyncio.get_running_loop().create_future()
    waiting: deque[tuple[bytes, float]] = deque()  # requests whose time came when no connection was free
    free: list[_Connection] = []

    def finished(connection: _Connection, status: int, body: bytes) -> None:
        nonlocal left
        recorder.note(connection.due, status, body)
        left -= 1
        if not left:
            done.set_result(None)
        elif not connection.transport.is_closing():
            if waiting:
                connection.send(*waiting.popleft())
            else:
                free.append(connection)

    opened = await _connect(port, CONNECTIONS, finished)
    free += opened
    started = time.perf_counter()
    for number, offset in enumerate(times.tolist()):
        due = started + offset
        await _at(due)
        request = requests[number % len(requests)]
        while free and free[-1].transport.is_closing():
            free.pop()
        if free:
            free.pop().send(request, due)
        else:
            waiting.append((request, due))
    await _until(done, opened, recorder)
    return recorder.end(started, missing=left)


async def _connect(port: int, connections: int, finished: _Finished) -> list[_Connection]:
    loop = asyncio.get_running_loop()
    return [
        (await loop.create_connection(lambda: _Connection(finished), "127.0.0.1", port))[1] for _ in range(connections)
    ]


async def _at(due: float) -> None:
    while (left := due - time.perf_counter()) > 0:
        await asyncio.sleep(left - SPIN_S if left > SPIN_S else 0)


async def _until(done: asyncio.Future[None], opened: Sequence[_Connection], recorder: _Recorder) -> int:
    """Until all is answered, or nothing more is to be expected. Returns how many wait in vain."""
    last = None
    while not done.done() and recorder.last != last:
        last = recorder.last
        await asyncio.wait([done], timeout=TIMEOUT_S)
    missing = sum(connection.busy for connection in opened)
    for connection in opened:
        connection.abort()
    return missing
