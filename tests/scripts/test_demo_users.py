"""Simulated users against a scorer that misbehaves: nothing that goes wrong goes uncounted."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import numpy as np
import pytest

from models.evaluation.worlds.r6b import R6bWorld
from scripts.demo_figures import Seen
from scripts.demo_users import Users

Answer = Callable[[str, dict[str, object]], tuple[int, object]]


@asynccontextmanager
async def scorer(answer: Answer) -> AsyncIterator[str]:
    """A real HTTP server that answers what it is told to."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                lines = head.decode().split("\r\n")
                length = next(int(line.split(":")[1]) for line in lines if line.lower().startswith("content-length"))
                body = json.loads(await reader.readexactly(length))
                status, content = answer(lines[0].split()[1], body)
                text = json.dumps(content)
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode())
                await writer.drain()
        except asyncio.IncompleteReadError:
            pass  # the client has gone
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"


def ranked(body: dict[str, object], **more: object) -> tuple[int, object]:
    items = [{"id": one["id"], "p_click": 0.5, "explored": False} for one in body["candidates"][:3]]  # type: ignore[index]
    model = {"version": 0}
    return 200, {"request_id": "r", "strategy": "greedy", "model": model, "items": items, **more}


async def visited(url: str, seconds: float = 0.3) -> Seen:
    seen = Seen(lambda after, version: [])
    world = R6bWorld(seed=0, ctr=0.5)
    async with httpx.AsyncClient(base_url=url, timeout=1.0) as client:
        generator = np.random.default_rng(0)
        await Users(client, world=world, seen=seen, rate=50, top_k=3, generator=generator).run(seconds)
    return seen


async def test_clicks_follow_the_slate_and_are_reported() -> None:
    events: list[dict[str, str]] = []

    def answer(path: str, body: dict[str, object]) -> tuple[int, object]:
        if path == "/v1/rank":
            return ranked(body)
        events.extend(body["events"])  # type: ignore[arg-type]
        return 202, {"results": [{"id": one["id"], "result": "accepted"} for one in body["events"]]}  # type: ignore[attr-defined]

    async with scorer(answer) as url:
        seen = await visited(url)
    assert seen.failed == 0
    assert 5 <= seen.strategies["greedy"].requests <= 16, "50 a second for 0.3 s"
    assert len(events) == seen.strategies["greedy"].clicks > 0
    assert {one["type"] for one in events} == {"click"}
    assert all(one["id"] == f"r:{one['item_id']}" for one in events)


@pytest.mark.parametrize(
    ("rank", "event", "failure"),
    [
        ((503, {"code": "overloaded"}), None, '/v1/rank: 503 {"code": "overloaded"}'),
        (None, (500, {}), "/v1/events: 500 {}"),
        (None, (202, {"results": [{"result": "rejected", "code": "event_time"}]}), "event rejected: event_time"),
        (None, (202, {"results": [{"result": "duplicate"}]}), "event duplicate: "),
    ],
)
async def test_what_is_refused_is_counted(
    rank: tuple[int, object] | None, event: tuple[int, object] | None, failure: str
) -> None:
    def answer(path: str, body: dict[str, object]) -> tuple[int, object]:
        return (rank or ranked(body)) if path == "/v1/rank" else event or (202, {"results": []})

    async with scorer(answer) as url:
        seen = await visited(url)
    assert list(seen.failures) == [failure]
    assert 0 < seen.failed <= seen.requests


async def test_a_record_that_was_dropped_is_a_failure() -> None:
    def answer(path: str, body: dict[str, object]) -> tuple[int, object]:
        return ranked(body, warnings=["served_record_dropped"]) if path == "/v1/rank" else (202, {"results": []})

    async with scorer(answer) as url:
        seen = await visited(url)
    assert list(seen.failures) == ["/v1/rank: warning served_record_dropped"]


async def test_a_scorer_that_is_gone_is_a_failure() -> None:
    async with scorer(lambda path, body: ranked(body)) as url:
        pass
    seen = await visited(url)
    assert list(seen.failures) == ["/v1/rank: ConnectError"]
    assert seen.failed == seen.requests > 0
