"""The load generator against a real server: every answer counted, every failure seen, every wait charged."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from scripts.bench.load import CONNECTIONS, closed_loop, open_loop, post, send_all

SERVICE_S = 0.02  # of /slow, one request at a time
SILENCE_S = 1.5  # of /silent


class Seen:
    """What the server was asked."""

    def __init__(self) -> None:
        self.bodies: Counter[str] = Counter()
        self.clients: set[tuple[str, int]] = set()
        self.turn = asyncio.Lock()

    async def note(self, request: Request) -> str:
        body = (await request.body()).decode()
        self.bodies[body] += 1
        assert request.client is not None
        self.clients.add((request.client.host, request.client.port))
        return body

    async def echo(self, request: Request) -> Response:
        return JSONResponse({"echo": await self.note(request)})

    async def chunked(self, request: Request) -> Response:
        text = json.dumps({"echo": await self.note(request)}).encode()

        async def parts() -> AsyncIterator[bytes]:
            for part in (text[:3], text[3:9], text[9:]):
                yield part
                await asyncio.sleep(0)

        return StreamingResponse(parts(), media_type="application/json")

    async def refuse(self, request: Request) -> Response:
        await self.note(request)
        return JSONResponse({"code": "overloaded"}, 503)

    async def hang_up(self, request: Request) -> Response:
        await self.note(request)
        return Response(headers={"Connection": "close"})

    async def slow(self, request: Request) -> Response:
        await self.note(request)
        async with self.turn:
            await asyncio.sleep(SERVICE_S)
        return JSONResponse({})

    async def silent(self, request: Request) -> Response:
        await self.note(request)
        await asyncio.sleep(SILENCE_S)
        return JSONResponse({})


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def port(seen: Seen) -> Iterator[int]:
    names = ("echo", "chunked", "refuse", "hang_up", "slow", "silent")
    app = Starlette(routes=[Route(f"/{name}", getattr(seen, name), methods=["POST"]) for name in names])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join()


@pytest.mark.parametrize("path", ["/echo", "/chunked"])
@pytest.mark.parametrize("connections", [1, 5])
def test_a_closed_loop_counts_every_answer(port: int, seen: Seen, path: str, connections: int) -> None:
    requests = [post(path, body.encode()) for body in ("one", "two", "three")]
    outcome = closed_loop(port, requests, connections=connections, seconds=0.2, keep=True)
    assert outcome.failures == {}
    assert len(outcome.latencies) == len(outcome.answers) == seen.bodies.total() > 3
    assert len(seen.clients) == connections
    counts = [seen.bodies[body] for body in ("one", "two", "three")]
    assert max(counts) - min(counts) <= 1  # in a circle
    if path == "/echo":
        assert Counter(json.loads(one)["echo"] for one in outcome.answers) == seen.bodies
    assert outcome.rate == pytest.approx(len(outcome.latencies) / outcome.seconds)
    assert 0.0 < outcome.quantile(0.5) <= outcome.quantile(0.99) < outcome.seconds


def test_a_large_body_comes_whole(port: int, seen: Seen) -> None:
    body = "x" * 1_000_000
    outcome = send_all(port, [post("/echo", body.encode())])
    assert [json.loads(one)["echo"] for one in outcome.answers] == [body]


def test_each_request_is_sent_once(port: int, seen: Seen) -> None:
    bodies = [str(number) for number in range(50)]
    outcome = send_all(port, (post("/echo", body.encode()) for body in bodies), connections=3)
    assert seen.bodies == Counter(bodies)
    assert len(outcome.answers) == 50


def test_another_status_is_a_failure_and_no_latency(port: int, seen: Seen) -> None:
    outcome = closed_loop(port, [post("/refuse", b"")], connections=2, seconds=0.1)
    assert outcome.latencies == []
    assert np.isnan(outcome.quantile(0.99))
    ((failure, times),) = outcome.failures.items()
    assert failure == 'status 503: {"code":"overloaded"}'
    assert times == seen.bodies.total()


def test_a_loop_may_take_longer_than_an_answer(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.bench.load.TIMEOUT_S", 10 * SERVICE_S)
    sent = send_all(port, 40 * [post("/slow", b"")])
    assert (len(sent.answers), sent.failures) == (40, {})
    outcome = closed_loop(port, [post("/slow", b"")], connections=2, seconds=1.0)
    assert outcome.failures == {}
    assert outcome.seconds >= 1.0


def test_who_waits_in_vain_is_counted_once(
    port: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("scripts.bench.load.TIMEOUT_S", 0.1)
    outcome = closed_loop(port, [post("/silent", b"")], connections=3, seconds=0.1)
    assert (outcome.latencies, outcome.failures) == ([], {"no answer": 3})
    generator = np.random.default_rng(0)
    outcome = open_loop(port, [post("/silent", b"")], rate=1_000.0, seconds=0.06, generator=generator)
    assert (outcome.latencies, outcome.failures) == ([], {"no answer": 60})
    assert caplog.records == []


def test_a_connection_that_ends_answers_no_more(port: int, seen: Seen) -> None:
    outcome = closed_loop(port, [post("/hang_up", b"")], connections=2, seconds=30.0)
    assert len(outcome.latencies) + outcome.failures.total() <= 4
    assert seen.bodies.total() <= 4


def test_an_open_loop_sends_all_that_is_due(port: int, seen: Seen) -> None:
    generator = np.random.default_rng(0)
    outcome = open_loop(port, [post("/echo", b"a"), post("/echo", b"b")], rate=200.0, seconds=0.5, generator=generator)
    assert outcome.failures == {}
    assert len(outcome.latencies) == 100
    assert seen.bodies == {"a": 50, "b": 50}


def test_an_open_loop_charges_for_the_wait_of_those_behind(port: int) -> None:
    """60 requests of 20 ms one after the other take 1.2 s; they are due within about 0.06 s."""
    generator = np.random.default_rng(0)
    outcome = open_loop(port, [post("/slow", b"")], rate=1_000.0, seconds=0.06, generator=generator)
    assert len(outcome.latencies) == 60 > CONNECTIONS
    assert max(outcome.latencies) > 50 * SERVICE_S


def test_an_open_loop_without_a_connection_left_says_how_many_had_no_answer(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.bench.load.TIMEOUT_S", 1.0)
    count = 3 * CONNECTIONS
    outcome = open_loop(
        port, [post("/hang_up", b"")], rate=10.0 * count, seconds=0.1, generator=np.random.default_rng(0)
    )
    assert outcome.failures["no answer"] >= count - 2 * CONNECTIONS
    assert len(outcome.latencies) + outcome.failures.total() == count
