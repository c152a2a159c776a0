"""Memory: what a join holds, and the same as arrays, as it travels.

A served record stays the bytes that it was in the log, and is copied as such: a checkpoint encodes nothing again.
"""

from array import array
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from models.noise import seed_of
from models.types import Array
from service.errors import EventError
from service.events import Served, decode_served
from service.streams import Entry, order
from service.training.early import Waiting

K = TypeVar("K")
T = TypeVar("T")

#: Of a row that was not clicked, instead of when it was.
UNCLICKED = -1

#: Of a window instead of a row: every row of its request, or none, for it is the wait for impression events.
ALL, NONE = -1, -2


class Order(NamedTuple):
    """Where a closing stands among those of all partitions, which close in ascending order.

    Closings that compare equal are of one partition, and stay as they are.
    """

    time_ms: int  # the first at which it is certain: the one after its window, or that of the entry that it gave way to
    opened_ms: int  # and the rest of the entry that opened the window
    seq: int  # of the uint64
    stream: str


class Closed(NamedTuple):
    """Impressions of one request whose window has closed."""

    served: Served
    rows: list[int]  # of the slate
    click_ms: list[int]  # of each row's first click, UNCLICKED where there was none
    order: Order

    @property
    def time_ms(self) -> int:
        """When they were shown, by the log's clock."""
        return self.order.opened_ms


class Joined(NamedTuple):
    """What the join made of the entries since it was last asked."""

    closed: list[Closed]  # in order
    refused: list[tuple[Entry, EventError]]  # feedback on what was never shown: unknown_request, unknown_item
    counts: Counter[str]  # result -> events; impressions where it is evicted, served records where it is delayed


class Met(OrderedDict[K, int]):
    """Ids or their hashes -> when they were met, in order of time."""

    def forget(self, before_ms: int, most: int) -> list[K]:
        """Those that give way: what is older, and the oldest of more than `most`."""
        forgotten = []
        while self and (next(iter(self.values())) < before_ms or len(self) > most):
            forgotten.append(self.popitem(last=False)[0])
        return forgotten


class Request(msgspec.Struct, gc=False):
    """A served record while it waits."""

    id: str
    time_ms: int
    payload: bytes  # of the entry
    clicks: "array[int]"  # by row, as long
    windows: int = 0  # open
    item_ids: list[str] = []  # as soon as feedback asks for them
    number: int = 0  # among all, where they are numbered

    def row(self, item_id: str) -> int | None:
        """Of the slate; None where the item was not on it."""
        self.item_ids = self.item_ids or decode_served(self.payload).item_ids
        return self.item_ids.index(item_id) if item_id in self.item_ids else None


class Window(msgspec.Struct, gc=False):
    """Rows that close together, one attribution window after time_ms."""

    time_ms: int
    seq: int
    stream: str
    request: Request
    row: int  # ALL, NONE


class Closing(msgspec.Struct, array_like=True, gc=False):
    """What is to become Closed."""

    payload: bytes
    rows: list[int]
    click_ms: list[int]
    order: Order

    def closed(self) -> Closed:
        return Closed(decode_served(self.payload), self.rows, self.click_ms, self.order)


def opened(entry: Entry, time_ms: int, request: Request, row: int) -> Window:
    """A window that this entry opens."""
    request.windows += 1
    return Window(time_ms, order(entry.position)[1], entry.stream, request, row)


def pack_requests(requests: Sequence[Request]) -> dict[str, Array]:
    """In order."""
    return {
        "request.id": _packed([one.id for one in requests]),
        "request.time_ms": np.array([one.time_ms for one in requests], dtype=np.int64),
        "request.bytes": np.array([len(one.payload) for one in requests], dtype=np.int64),
        "request.rows": np.array([len(one.clicks) for one in requests], dtype=np.int32),
        "request.windows": np.array([one.windows for one in requests], dtype=np.int32),
        "payload": np.frombuffer(b"".join([one.payload for one in requests]), dtype=np.uint8),
        "click_ms": np.frombuffer(b"".join([one.clicks for one in requests]), dtype=np.int64),
    }


def unpack_requests(state: Mapping[str, Array]) -> list[Request]:
    """The inverse."""
    time_ms, windows = (state[name].tolist() for name in ("request.time_ms", "request.windows"))
    payloads = _cut(state["payload"].tobytes(), state["request.bytes"])
    clicks = _cut(state["click_ms"].tobytes(), 8 * state["request.rows"].astype(np.int64))
    return [
        Request(id, time_ms, payload, array("q", click), windows)
        for id, time_ms, payload, click, windows in zip(
            _unpacked(state["request.id"], list[str]), time_ms, payloads, clicks, windows, strict=True
        )
    ]


def pack_windows(windows: Sequence[Window], requests: Sequence[Request]) -> dict[str, Array]:
    """Windows in order, of these requests."""
    for number, request in enumerate(requests):
        request.number = number
    streams = list({one.stream: None for one in windows})
    place = {stream: number for number, stream in enumerate(streams)}
    return {
        "window.time_ms": np.array([one.time_ms for one in windows], dtype=np.int64),
        "window.seq": np.array([one.seq for one in windows], dtype=np.uint64),
        "window.stream": np.array([place[one.stream] for one in windows], dtype=np.uint8),
        "window.request": np.array([one.request.number for one in windows], dtype=np.int32),
        "window.row": np.array([one.row for one in windows], dtype=np.int32),
        "streams": _packed(streams),
    }


def unpack_windows(state: Mapping[str, Array], requests: Sequence[Request]) -> list[Window]:
    """The inverse."""
    streams = _unpacked(state["streams"], list[str])
    names = "time_ms", "seq", "stream", "request", "row"
    columns = (state[f"window.{name}"].tolist() for name in names)
    return [
        Window(time_ms, seq, streams[stream], requests[request], row)
        for time_ms, seq, stream, request, row in zip(*columns, strict=True)
    ]


def pack_times(name: str, times: Mapping[str, int]) -> dict[str, Array]:
    """Ids and when they were first met, in order."""
    time_ms = np.array(list(times.values()), dtype=np.int64)
    return {f"{name}.id": _packed(list(times)), f"{name}.time_ms": time_ms}


def unpack_times(name: str, state: Mapping[str, Array]) -> "Met[str]":
    """The inverse."""
    return Met(zip(_unpacked(state[f"{name}.id"], list[str]), state[f"{name}.time_ms"].tolist(), strict=True))


def pack_closed(times: Mapping[int, int]) -> dict[str, Array]:
    """Hashes of request ids and when they closed, in order."""
    count = len(times)
    return {
        "closed.hash": np.fromiter(times.keys(), dtype=np.uint64, count=count),
        "closed.time_ms": np.fromiter(times.values(), dtype=np.int64, count=count),
    }


def unpack_closed(state: Mapping[str, Array], requests: Sequence[Request]) -> "Met[int]":
    """The inverse. Older releases have them among the requests."""
    if "closed.hash" in state:
        return Met(zip(state["closed.hash"].tolist(), state["closed.time_ms"].tolist(), strict=True))
    return Met((seed_of(one.id), one.time_ms) for one in requests if not one.windows)


def pack_events(early: Sequence[Waiting], closings: Sequence[Closing]) -> dict[str, Array]:
    """The rest, all in order."""
    return {"early": _packed(early), "closings": _packed(closings)}


def unpack_events(state: Mapping[str, Array]) -> tuple[list[Waiting], list[Closing]]:
    """The inverse."""
    return _unpacked(state["early"], list[Waiting]), _unpacked(state["closings"], list[Closing])


def _packed(content: object) -> Array:
    return np.frombuffer(msgspec.msgpack.encode(content), dtype=np.uint8)


def _unpacked(content: Array, kind: type[T]) -> T:
    return msgspec.msgpack.decode(content.tobytes(), type=kind)


def _cut(content: bytes, sizes: Array) -> list[bytes]:
    """Into pieces of these sizes."""
    return [content[start:end] for start, end in pairwise(accumulate(sizes.tolist(), initial=0))]
