"""The log: which streams there are, and the one order in which the trainer reads them.

An entry has one field, `e`, its payload. A position is an entry's id, "ms-seq", and the id's milliseconds are the clock
of the join. Entries of all input streams are read merged by (ms, seq, stream), an order that depends on nothing but the
entries: not on how they are chunked, not on when the reader was started. Two things hold it up: the clock of the server
that dates a stream's entries does not step back, and whoever sets ids itself appends in that order (see
`service.appends`). Each node of a cluster has a clock of its own; a reader waits for the one that is furthest behind.
Ids far in the future hold nobody up (see `service.redating`).

Redis that is down surfaces as `redis.exceptions.RedisError`: the caller decides what that means.
"""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import redis

from models.noise import seed_of
from service import clusters
from service.connections import LONGEST_BLOCK_MS
from service.redating import FUTURE_MS, redate

POLL_S = 0.02  # of a cluster, whose nodes cannot be waited for at the same time
START = "0-0"  # the position before the first entry
LAST = 2**64 - 1, 0  # (ms, seq) beyond all entries, but for those that set their ids to it
FIELD = b"e"

_LAG_COUNTED = 100  # entries; a longer lag is estimated, for counting it would hold up the server

# {entries after the position}, or if those are ARGV[2] or more {that, length, first id, last id}
_LAG = """
local after = #redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
if after < tonumber(ARGV[2]) then return {after} end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1][1]
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1]
return {after, redis.call('XLEN', KEYS[1]), first, last}
"""


class StreamNames:
    """Every key of the log. A partition's keys share a hash tag.

    Args:
        prefix: first part of every key.
        partitions: of the served and feedback streams, by request id.
    """

    def __init__(self, prefix: str, partitions: int) -> None:
        self._partitions = [f"{prefix}:{{{partition}}}" for partition in range(partitions)]
        self.inputs = tuple(f"{one}:{kind}" for one in self._partitions for kind in ("served", "feedback"))
        self.models = f"{prefix}:models"
        self.dead = f"{prefix}:dead"
        self.items = f"{prefix}:{{items}}"
        self.item_changes = f"{self.items}:changes"

    def served(self, request_id: str) -> str:
        return f"{self._partition(request_id)}:served"

    def feedback(self, request_id: str) -> str:
        return f"{self._partition(request_id)}:feedback"

    def event(self, request_id: str, event_id: str) -> str:
        """The key that remembers that this event was appended."""
        return f"{self._partition(request_id)}:event:{event_id}"

    def _partition(self, request_id: str) -> str:
        return self._partitions[seed_of(request_id) % len(self._partitions)]


class Entry(NamedTuple):
    """One entry of one stream."""

    stream: str
    position: str
    payload: bytes

    @property
    def time_ms(self) -> int:
        return order(self.position)[0]


def partition_of(stream: str) -> int:
    """Of which partition a stream, or anything else whose name has its hash tag, is."""
    return int(stream.rpartition("}")[0].rpartition("{")[2])


def order(position: str) -> tuple[int, int]:
    """(ms, seq): positions compare by this, not as text."""
    ms, _, seq = position.partition("-")
    return int(ms), int(seq)


def entries_of(reply: Any) -> dict[str, list[Entry]]:
    """The reply of XREAD, by stream. Without the field the payload is empty, which no decoder takes."""
    return {
        key.decode(): [Entry(key.decode(), one.decode(), fields.get(FIELD, b"")) for one, fields in entries]
        for key, entries in dict(reply).items()
    }


class LogReader:
    """Reads input streams as one. Keeps no position: the caller's checkpoint does.

    Args:
        client: from `connections.connect`.
        names: whose inputs are read.
        owns: which partitions' inputs, None for all.
        count: most entries fetched from one stream at a time.
        size: and about most bytes, where its entries are as large as those before.
        redated: is told of streams and how many of their entries came back from the future (see `service.redating`).
    """

    def __init__(
        self,
        client: redis.Redis,
        names: StreamNames,
        *,
        owns: Callable[[int], bool] | None = None,
        count: int = 1_000,
        size: int = 64 * 2**20,
        redated: Callable[[str, int], None] | None = None,
    ) -> None:
        self._client, self._tell, self._most, self._size = client, redated, count, size
        self._largest: dict[str, int] = {}  # stream -> bytes of an entry, in the last fetch
        self._count: dict[str, int] = {}  # stream -> most entries of the last fetch
        self._redated_ms: dict[str, int] = {}  # when that was last done
        self.streams = [one for one in names.inputs if owns is None or owns(partition_of(one))]
        self._groups = clusters.together(client, self.streams)

    def read(self, positions: Mapping[str, str], *, block_ms: int) -> list[Entry]:
        """The next entries after `positions`, in merged order.

        Empty where in `block_ms` (at most 2 s) none came whose place in the order is certain.
        """
        return self.read_on(positions, block_ms=block_ms)[0]

    def read_on(self, positions: Mapping[str, str], *, block_ms: int) -> tuple[list[Entry], tuple[int, int]]:
        """The same, and the place (ms, seq) before which no more will come."""
        if not self.streams:
            return [], LAST
        until_ms = None
        while True:
            now_ms, found = self._fetch(positions)
            if self._redated(positions, now_ms, found):
                continue
            ready, end = self._ready(now_ms, found)
            earliest_ms = min(now_ms.values())
            until_ms = until_ms or earliest_ms + min(block_ms, LONGEST_BLOCK_MS)
            if ready or earliest_ms >= until_ms:
                return ready, end
            self._wait(positions, now_ms, found, until_ms - earliest_ms)

    def lag(self, positions: Mapping[str, str]) -> dict[str, int]:
        """Stream -> entries after our position; above 100 estimated from the time they span."""
        return {stream: self._behind(stream, positions.get(stream, START)) for stream in self.streams}

    def _fetch(self, positions: Mapping[str, str]) -> tuple[dict[str, int], dict[str, list[Entry]]]:
        """(stream -> its server's time, stream -> up to count entries), the time taken before the entries."""
        now_ms: dict[str, int] = {}
        found: dict[str, list[Entry]] = {}
        after = {stream: positions.get(stream, START) for stream in self.streams}
        # All of it is in memory before it can be known to be junk. The others are read as ever.
        for stream in self.streams:
            self._count[stream] = min(max(self._size // max(self._largest.get(stream, 0), 1), 1), self._most)
        for count in sorted(set(self._count.values())):
            part = {stream: position for stream, position in after.items() if self._count[stream] == count}
            groups = clusters.together(self._client, part)
            for streams, time_ms, reply in clusters.fetch(self._client, groups, part, count=count):
                now_ms |= dict.fromkeys(streams, time_ms)
                found |= entries_of(reply)
        self._largest = {stream: max(len(one.payload) for one in entries) for stream, entries in found.items()}
        return now_ms, found

    def _redated(self, positions: Mapping[str, str], now: Mapping[str, int], found: Mapping[str, list[Entry]]) -> bool:
        """Whether there were entries of the future, which now are of today."""
        moved = 0
        for stream, entries in found.items():
            now_ms = now[stream]
            # The server stands still meanwhile, so whoever keeps writing them waits, with his partition.
            again_ms = self._redated_ms.get(stream, 0) + FUTURE_MS
            if entries[-1].time_ms > now_ms + FUTURE_MS and now_ms >= again_ms:
                number = redate(self._client, stream, after=order(positions.get(stream, START)), now_ms=now_ms)
                self._redated_ms[stream] = now_ms
                moved += number
                if number and self._tell:
                    self._tell(stream, number)
        return moved > 0

    def _ready(
        self, now_ms: Mapping[str, int], found: Mapping[str, list[Entry]]
    ) -> tuple[list[Entry], tuple[int, int]]:
        """What no entry still to come can precede, in order, and up to where that is."""
        # Of a stream that gave fewer than count, the next entry is one that its server dates itself: now_ms or later.
        # Of one that gave count, the next comes after the last of them.
        ends = []
        for stream in self.streams:
            entries = found.get(stream, [])
            ms, seq = order(entries[-1].position) if len(entries) == self._count[stream] else (now_ms[stream], -1)
            ends.append((ms, seq + 1))
        end = min(ends)
        ranked = sorted((order(one.position), stream, one) for stream, entries in found.items() for one in entries)
        return [entry for place, _, entry in ranked if place < end], end

    def _wait(
        self, positions: Mapping[str, str], now_ms: Mapping[str, int], found: Mapping[str, list[Entry]], block_ms: int
    ) -> None:
        """Until something new comes, or what is there becomes certain."""
        certain_ms = min(
            (entries[0].time_ms + 1 - now_ms[stream] for stream, entries in found.items()), default=block_ms
        )
        if len(self._groups) > 1:
            time.sleep(min(block_ms / 1000, POLL_S))
            return
        if certain_ms == 1:  # dated now, as it mostly is; a server may let a short block last for 100 ms
            time.sleep(0.001)
            return
        seen: dict[Any, Any] = {stream: positions.get(stream, START) for stream in self.streams}
        for stream, entries in found.items():
            if len(entries) < self._count[stream]:
                seen[stream] = entries[-1].position
            else:  # all dated ahead of the clock: what comes after them changes nothing
                del seen[stream]
        self._client.xread(seen, count=1, block=min(block_ms, certain_ms))

    def _behind(self, stream: str, position: str) -> int:
        counted, *span = self._client.eval(_LAG, 1, stream, position, _LAG_COUNTED)
        if not span:
            return int(counted)
        length, first_ms, last_ms = int(span[0]), order(span[1].decode())[0], order(span[2].decode())[0]
        share = (last_ms - order(position)[0]) / max(last_ms - first_ms, 1)
        return max(int(counted), math.ceil(length * min(share, 1.0)))


def lost(info: Mapping[str, Any] | None, position: str) -> bool:
    """Whether entries after `position` are gone, by a stream's XINFO STREAM, None where there is no such stream."""
    if info is None:
        return position != START  # we have read from a stream that is gone
    if order(info["last-generated-id"].decode()) <= order(position):
        return False
    if order(info.get("max-deleted-entry-id", b"0-0").decode()) > order(position):
        return True
    first = info["first-entry"]
    if position == START:  # only a server that counts (7.0) can tell
        return bool(info.get("entries-added", info["length"]) > info["length"])
    return first is None or order(first[0].decode()) > order(position)
