"""The client as users: they click at once on some of what they are shown, and note which version showed it."""

import http.client
import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
import numpy as np

from service.scoring.schemas import RankResponse

EVENTS = "/v1/events"
_BATCH = 50  # answers looked at before their clicks are posted
_TIMEOUT_S = 30.0


class Users:
    """Made by `users`. What they note is complete when the context ends.

    Attributes:
        served: version -> when an answer by it came first, Unix seconds.
        ages: of each answer's model, when the answer came: seconds since the newest event that it contains.
        clicks: how many were posted.
        failures: posts and events that were not accepted.
    """

    def __init__(self, port: int, ctr: float, generator: np.random.Generator) -> None:
        self.served: dict[int, float] = {}
        self.ages: list[float] = []
        self.clicks = 0
        self.failures: Counter[str] = Counter()
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_TIMEOUT_S)
        self._ctr, self._generator = ctr, generator
        self._answers: queue.SimpleQueue[tuple[float, bytes] | None] = queue.SimpleQueue()

    def answered(self, body: bytes) -> None:
        """An answer has just come."""
        self._answers.put((time.time(), body))

    def run(self) -> None:
        """Until `end`."""
        while batch := self._next():
            events = [event for came, body in batch for event in self._look(came, _answer(body))]
            if events:
                self._post(events)
        self._connection.close()

    def end(self) -> None:
        self._answers.put(None)

    def _next(self) -> list[tuple[float, bytes]]:
        """The answers that are there, at least one; none at the end."""
        batch, one = [], self._answers.get()
        while one is not None:
            batch.append(one)
            if len(batch) == _BATCH or self._answers.empty():
                return batch
            one = self._answers.get()
        if batch:
            self.end()  # to be found again
        return batch

    def _look(self, came: float, answer: RankResponse) -> list[dict[str, Any]]:
        """Clicks on an answer."""
        self.served.setdefault(answer.model.version, came)
        if answer.model.data_timestamp is not None:
            self.ages.append(came - answer.model.data_timestamp.timestamp())
        chosen = self._generator.random(len(answer.items)) < self._ctr
        return [
            {
                "id": f"{answer.request_id}-{item.id}",
                "type": "click",
                "request_id": answer.request_id,
                "item_id": item.id,
                "time": datetime.now(UTC).isoformat(),
            }
            for item, clicked in zip(answer.items, chosen, strict=True)
            if clicked
        ]

    def _post(self, events: list[dict[str, Any]]) -> None:
        body = json.dumps({"events": events}).encode()
        self._connection.request("POST", EVENTS, body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        content = answer.read()
        if answer.status != 202:
            self.failures[f"status {answer.status}: {content[:200].decode(errors='replace')}"] += 1
            return
        self.clicks += len(events)
        self.failures.update(one["result"] for one in json.loads(content)["results"] if one["result"] != "accepted")


@contextmanager
def users(port: int, *, ctr: float, generator: np.random.Generator) -> Iterator[Users]:
    """Users of the server on this port, who click on each shown item with a probability of `ctr`.

    They live in a thread; `Users.answered` is for the client that sends their requests.
    """
    found = Users(port, ctr, generator)
    thread = threading.Thread(target=found.run, name="users", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        found.end()
        thread.join()


_answer = msgspec.json.Decoder(RankResponse).decode
