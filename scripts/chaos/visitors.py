"""Visitors who never give up: they ask for a ranking, and report what they saw until it is accepted."""

import asyncio
import random
import time
from collections import Counter
from itertools import count

import httpx
import msgspec

from scripts.bench.work import Catalogue

SHOWN = 3  # items of an answer
CANDIDATES = 5
IN_FLIGHT = 16  # visits at a time; slower answers slow the visitors down
POSTERS, BATCH = 4, 100  # who report events, and how many at a time
POST_MS = 1_000  # so long a report waits for Redis
AGAIN_S = 0.05  # from a refusal to the next attempt
_CTR = 0.3


class Visitors:
    """Visits at a steady rate, and their events.

    Args:
        client: of the scorer.
        rate: visits a second, while the answers keep up.
        seed: of clicks.
    """

    def __init__(self, client: httpx.AsyncClient, *, rate: float, seed: int) -> None:
        self._client, self._rate, self._draw = client, rate, random.Random(seed)
        self._catalogue, self._free = Catalogue(seed=seed), asyncio.Semaphore(IN_FLIGHT)
        self._events: asyncio.Queue[dict[str, str]] = asyncio.Queue()
        self.failures: Counter[str] = Counter()  # of rankings
        self.seconds: list[float] = []  # that each answer took
        self.ranked: set[str] = set()  # ids of requests
        self.results: Counter[str] = Counter()  # of events, as they were answered at last
        self.refused: Counter[str] = Counter()  # of reports, which were then sent again, by code
        self.accepted: set[str] = set()  # ids of events
        self.accepted_at = 0.0  # when the newest report that was accepted was sent

    async def run(self, done: asyncio.Event) -> None:
        """Visits until it is done; then the last events are reported."""
        async with asyncio.TaskGroup() as posters:
            tasks = [posters.create_task(self._report()) for _ in range(POSTERS)]
            await self._visits(done)
            await self._events.join()
            for task in tasks:
                task.cancel()

    async def _visits(self, done: asyncio.Event) -> None:
        started = time.monotonic()
        async with asyncio.TaskGroup() as visits:
            for number in count():
                await asyncio.sleep(started + number / self._rate - time.monotonic())
                await self._free.acquire()
                if done.is_set():
                    return
                visits.create_task(self._visit(number))

    async def _visit(self, number: int) -> None:
        request = self._catalogue.request(number, CANDIDATES, top_k=SHOWN)
        started = time.monotonic()
        try:
            response = await self._client.post("/v1/rank", content=msgspec.json.encode(request))
        except httpx.HTTPError as error:
            self.failures[type(error).__name__] += 1
            return
        finally:
            self._free.release()
        self.seconds.append(time.monotonic() - started)
        if response.status_code != 200:
            self.failures[_code(response)] += 1
            return
        self.ranked.add(request["request_id"])
        for item in response.json()["items"]:
            for kind in ("impression", "click") if self._draw.random() < _CTR else ("impression",):
                event_id = f"{kind}-{number}-{item['id']}"
                event = {"id": event_id, "type": kind, "request_id": request["request_id"], "item_id": item["id"]}
                self._events.put_nowait(event)

    async def _report(self) -> None:
        """One batch after the other, each until it is accepted. Never ends."""
        while True:
            batch = [await self._events.get()]
            while len(batch) < BATCH and not self._events.empty():
                batch.append(self._events.get_nowait())
            while not await self._post(batch):
                await asyncio.sleep(AGAIN_S)
            for _ in batch:
                self._events.task_done()

    async def _post(self, batch: list[dict[str, str]]) -> bool:
        started, content = time.monotonic(), msgspec.json.encode({"events": batch})
        try:
            response = await self._client.post("/v1/events", content=content, headers={"X-Deadline-Ms": str(POST_MS)})
        except httpx.HTTPError as error:
            self.refused[type(error).__name__] += 1
            return False
        if response.status_code != 202:
            self.refused[_code(response)] += 1
            return False
        self.accepted_at = max(self.accepted_at, started)
        for one in response.json()["results"]:
            self.results[one["result"]] += 1
            self.accepted.add(one["id"])
        return True


def _code(response: httpx.Response) -> str:
    return f"{response.status_code} {response.json()['code']}"
