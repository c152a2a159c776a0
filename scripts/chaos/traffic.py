"""A log with everything in it that a network does to events: doubled, reordered, late, lost and broken ones."""

import random
from collections.abc import Iterator
from typing import NamedTuple

from models.features import Encoder
from models.spec import FeatureSpec
from service.events import Event, EventType, Served, encode
from service.streams import Entry, StreamNames

SPEC = """
[[fields]]
name = "segment"
side = "user"
kind = "categorical"
buckets = 16
width = 4

[[fields]]
name = "id"
side = "item"
kind = "categorical"
source = "id"
buckets = 256
width = 4
"""
STRATEGIES: dict[str, dict[str, object]] = {
    "greedy": {"method": "greedy"},
    "age_ts": {"method": "age", "uncertainty": "thompson", "budget": 0.05},
}
LANE = "default"
WINDOW_MS = 1_000
SHOWN = 3  # items of a request
_SEGMENTS, _ITEMS = 8, 100
_START_MS, _APART_MS = 1_700_000_000_000, 2  # of the first request, and from one to the next
_CTR = {True: 0.5, False: 0.05}  # of items that a segment likes, and of others
_DELAY_MS = 200.0  # of a click, on the average
#: Shares of what goes wrong.
_TWICE, _EARLY, _LATE, _UNSHOWN, _STRANGE, _BROKEN, _OTHER_LANE = 0.05, 0.05, 0.05, 0.03, 0.01, 0.01, 0.03


class Log(NamedTuple):
    """What a trainer is to read."""

    entries: list[Entry]  # in the order in which they are read
    events: int  # impressions and clicks among them, the repeated ones, too
    repeated: int  # entries that were sent before: served records by request, events by their id
    disordered: int  # events that come before the served record of their request


class _Logged(NamedTuple):
    time_ms: int
    stream: str
    payload: bytes


def make(events: int, names: StreamNames, seed: int) -> Log:
    """A log of at least so many events. The same seed makes the same log."""
    draw = random.Random(seed)
    found = Log([], 0, 0, 0)
    logged: list[_Logged] = []
    for visit in _visits(draw):
        logged += visit.logged(names)
        found = found._replace(
            events=found.events + len(visit.events) + len(visit.broken),
            repeated=found.repeated + visit.repeated,
            disordered=found.disordered + sum(time_ms < visit.served_ms for time_ms, _ in visit.events),
        )
        if found.events >= events:
            break
    logged.sort(key=lambda one: one.time_ms)
    entries = [Entry(one.stream, f"{one.time_ms}-{place}", one.payload) for place, one in enumerate(logged, 1)]
    return found._replace(entries=entries)


class _Visit(NamedTuple):
    """One request and what came of it."""

    request_id: str
    served_ms: int
    served: list[bytes]
    events: list[tuple[int, Event]]
    broken: list[bytes]
    repeated: int

    def logged(self, names: StreamNames) -> Iterator[_Logged]:
        for payload in self.served:
            yield _Logged(self.served_ms, names.served(self.request_id), payload)
        for time_ms, event in self.events:
            yield _Logged(time_ms, names.feedback(event.request_id), encode(event))
        for payload in self.broken:
            yield _Logged(self.served_ms, names.feedback(self.request_id), payload)


def _visits(draw: random.Random) -> Iterator[_Visit]:
    """Without end."""
    spec = FeatureSpec.from_toml(SPEC)
    encoder = Encoder(spec)
    ids = [f"item-{number}" for number in range(_ITEMS)]
    item_index, item_weight = encoder.items(ids, [None] * _ITEMS)
    contexts = [encoder.context(user={"segment": segment}) for segment in range(_SEGMENTS)]
    number = 0
    while True:
        number += 1
        request_id, time_ms = f"r-{number}", _START_MS + number * _APART_MS
        segment, places = draw.randrange(_SEGMENTS), draw.sample(range(_ITEMS), SHOWN)
        context_index, context_weight = contexts[segment]
        p_click = [draw.uniform(0.05, 0.5) for _ in places]
        served = Served(
            request_id=request_id,
            time_ms=time_ms,
            lane="other" if draw.random() < _OTHER_LANE else LANE,
            strategy=draw.choice(list(STRATEGIES)),
            version=1,
            lambda_=draw.uniform(5.0, 20.0),
            seed=number,
            spec_hash=spec.hash,
            bucket=None,
            context_index=context_index.tobytes(),
            context_weight=context_weight.tobytes(),
            item_ids=[ids[place] for place in places],
            item_index=item_index[places].tobytes(),
            item_weight=item_weight[places].tobytes(),
            p_click=p_click,
            score=p_click,
            explored=[draw.random() < 0.2 for _ in places],
            impressions=[draw.randrange(6_000) for _ in places],
            propensity=None,
        )
        yield _visit(draw, served, [(place + segment) % 3 == 0 for place in places])


def _visit(draw: random.Random, served: Served, liked: list[bool]) -> _Visit:
    """What the network made of a request and of its user's clicks."""
    events = [
        timed
        for item_id, likes in zip(served.item_ids, liked, strict=True)
        for timed in _feedback(draw, served, item_id, likes)
    ]
    if draw.random() < _STRANGE:  # a click on a request that nobody served
        strange = f"strange-{served.request_id}"
        events.append((served.time_ms, Event(id=strange, type="click", request_id=strange, item_id="item-0")))
    twice = [(time_ms + draw.randrange(500), event) for time_ms, event in events if draw.random() < _TWICE]
    copies = 1 + (draw.random() < _TWICE)
    return _Visit(
        request_id=served.request_id,
        served_ms=served.time_ms,
        served=[encode(served)] * copies,
        events=events + twice,
        broken=[b"\x01broken"] if draw.random() < _BROKEN else [],
        repeated=copies - 1 + len(twice),
    )


def _feedback(draw: random.Random, served: Served, item_id: str, likes: bool) -> Iterator[tuple[int, Event]]:
    """Of one item: (when it came, event)."""
    if draw.random() >= _UNSHOWN:
        yield served.time_ms + _lag(draw, 20.0), _event(served, item_id, "impression")
    if draw.random() < _CTR[likes]:
        yield served.time_ms + _lag(draw, _DELAY_MS), _event(served, item_id, "click")


def _lag(draw: random.Random, mean_ms: float) -> int:
    """Mostly a while, sometimes before the served record, sometimes after the window."""
    kind = draw.random()
    if kind < _EARLY:
        return -draw.randrange(1, 100)
    return round(draw.expovariate(1.0 / mean_ms)) + (WINDOW_MS if kind > 1.0 - _LATE else 0)


def _event(served: Served, item_id: str, kind: EventType) -> Event:
    return Event(id=f"{kind}-{served.request_id}-{item_id}", type=kind, request_id=served.request_id, item_id=item_id)
