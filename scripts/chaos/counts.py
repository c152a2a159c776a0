"""What a log holds, and what its trainer made of it: counted, and compared with what was accepted."""

import time
from collections.abc import Set
from typing import Any, NamedTuple

from scripts.bench.processes import Server
from scripts.chaos.lives import joined, metrics
from scripts.chaos.report import ChaosError, Found
from service.connections import connect
from service.events import decode_event, decode_served
from service.streams import FIELD, StreamNames
from service.valkey import EmbeddedServer

NAMES = StreamNames("agerank", partitions=1)
POLL_S = 0.05


class Log(NamedTuple):
    """What the streams hold in the end."""

    events: list[str]  # ids
    served: list[str]  # request ids

    @classmethod
    def read(cls, server: EmbeddedServer) -> "Log":
        with connect(server.url, name="agerank-chaos") as client:
            feedback: Any = client.xrange(NAMES.feedback(""))
            served: Any = client.xrange(NAMES.served(""))
        events = [decode_event(fields[FIELD]).id for _, fields in feedback]
        return cls(events, [decode_served(fields[FIELD]).request_id for _, fields in served])

    @property
    def served_twice(self) -> int:
        """Records that the scorer wrote again because Redis died before it had said that it has them."""
        return len(self.served) - len(set(self.served))

    def compared(self, accepted: Set[str], ranked: Set[str]) -> Found:
        """With the ids of the events that were accepted, and of the requests that were ranked."""
        return {
            "logged": len(set(self.events)),
            "doubled": len(self.events) - len(set(self.events)),
            "missing": len(accepted - set(self.events)),
            "served_twice": self.served_twice,
            "unrecorded": len(ranked - set(self.served)),
        }


def written(serve: Server, *, patience_s: float) -> None:
    """Waits until the scorer has written what it served. Raises ChaosError where that takes too long."""
    deadline = time.monotonic() + patience_s
    while metrics(serve.port).get(("agerank_served_queue_entries",)) != 0:
        if time.monotonic() > deadline:
            raise ChaosError(f"the scorer still has served records after {patience_s:g} s")
        time.sleep(POLL_S)


def learned(train: Server, log: Log, *, patience_s: float) -> Found:
    """What the trainer made of the log, when it has counted all events or takes too long."""
    deadline = time.monotonic() + patience_s
    while True:
        found = metrics(train.port)
        join = joined(found)
        join["duplicate"] = join.get("duplicate", 0) - log.served_twice  # which it counts there, too
        counted = sum(number for result, number in join.items() if result not in ("evicted", "delayed"))  # no events
        if counted == len(log.events) or time.monotonic() > deadline:
            gaps = sum(value for (name, *_), value in found.items() if name == "agerank_stream_lost_total")
            return {"learned": counted, "join": join, "gaps": int(gaps)}
        time.sleep(POLL_S)
