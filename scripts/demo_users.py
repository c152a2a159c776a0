"""The demo's users: they ask for a ranking over HTTP, look, click and report."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import msgspec
import numpy as np

from models.evaluation.worlds.r6b import R6bWorld, Visit
from models.types import Array
from scripts.demo_figures import Seen

IN_FLIGHT = 32  # users who wait for an answer or are about to click; slower answers slow the users down
SHORTEST_LOOK_S, LONGEST_LOOK_S = 0.1, 0.6  # from the answer to the click
TIMEOUT_S = 15.0


class Users:
    """Visits, one after the other at a steady rate.

    Args:
        client: of the scorer.
        world: who comes, and who would click what.
        seen: told of every answer.
        rate: visits a second, while the answers keep up.
        top_k: items shown.
        generator: of looks and clicks.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        *,
        world: R6bWorld,
        seen: Seen,
        rate: float,
        top_k: int,
        generator: np.random.Generator,
    ) -> None:
        self._client, self._world, self._seen, self._generator = client, world, seen, generator
        self._rate, self._top_k = rate, top_k
        self._free = asyncio.Semaphore(IN_FLIGHT)

    async def run(self, seconds: float) -> None:
        """Until the time is over and the last visit has ended."""
        start = time.monotonic()
        async with asyncio.TaskGroup() as visits:
            while (now_s := time.monotonic() - start) < seconds:
                await self._free.acquire()
                visits.create_task(self._visit(self._world.visit(now_s)))
                await asyncio.sleep(1.0 / self._rate - (time.monotonic() - start - now_s))

    async def _visit(self, visit: Visit) -> None:
        try:
            candidates = [{"id": item} for item in visit.candidates]
            user = {"id": visit.user_id, "features": {"features": visit.features}}
            answer = await self._post("/v1/rank", {"user": user, "candidates": candidates, "top_k": self._top_k}, 200)
            if answer is None:
                return
            place = {item: number for number, item in enumerate(visit.candidates)}
            clicked = visit.click([place[item["id"]] for item in answer["items"]], self._generator)
            self._seen.slate(visit, answer, clicked)
            if clicked.any():
                await asyncio.sleep(self._generator.uniform(SHORTEST_LOOK_S, LONGEST_LOOK_S))
                await self._report(answer, clicked)
        finally:
            self._free.release()

    async def _report(self, answer: dict[str, Any], clicked: Array) -> None:
        request_id, now = answer["request_id"], datetime.now(UTC).isoformat()
        items = [item["id"] for item, click in zip(answer["items"], clicked, strict=True) if click]
        events = [
            {"id": f"{request_id}:{item}", "type": "click", "request_id": request_id, "item_id": item, "time": now}
            for item in items
        ]
        report = await self._post("/v1/events", {"events": events}, 202)
        for result in report["results"] if report else ():
            if result["result"] != "accepted":
                self._seen.failures[f"event {result['result']}: {result.get('code', '')}"] += 1

    async def _post(self, path: str, body: dict[str, Any], expected: int) -> dict[str, Any] | None:
        """The answer, or None: then it was counted as a failure. So is an answer that could not be recorded."""
        self._seen.requests += 1
        try:
            response = await self._client.post(path, content=msgspec.json.encode(body))
        except httpx.HTTPError as error:
            self._seen.failures[f"{path}: {type(error).__name__}"] += 1
            return None
        if response.status_code != expected:
            self._seen.failures[f"{path}: {response.status_code} {response.text[:200]}"] += 1
            return None
        answer: dict[str, Any] = msgspec.json.decode(response.content)
        for warning in answer.get("warnings", ()):
            self._seen.failures[f"{path}: warning {warning}"] += 1
        return answer
