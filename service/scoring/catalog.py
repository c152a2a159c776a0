"""The items in Redis: what they are (a hash), and which of them changed (a stream of ids), always written together.

The hash is the truth. The stream only says where to look again, so it may be read twice and be trimmed: whoever lost
his place in it reads the hash. Neither is partitioned, for every scorer reads the whole, and the bound is one of it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import redis.asyncio
from redis.exceptions import ResponseError

from service.connections import LONGEST_BLOCK_MS
from service.errors import EventError
from service.events import SCHEMA
from service.streams import START, StreamNames, entries_of, lost, order

Put = Literal["created", "updated", "unchanged", "full"]
Item = tuple[bytes, bytes | None]  # id and entry, None where it is gone; both as Redis has them

AT_A_TIME = 200  # items of one reply: what it takes to encode them, a ranking may have to wait

# Both write the change first: where that fails, as in a server out of memory, nothing has happened.
_PUT = """
local results, last = {}, false
for i = 3, #ARGV, 2 do
  local id, entry = ARGV[i], ARGV[i + 1]
  local before = redis.call('HGET', KEYS[1], id)
  local result = before and 'updated' or 'created'
  if before == entry then
    result = 'unchanged'
  elseif not before and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[1]) then
    result = 'full'
  else
    last = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'e', string.sub(entry, 1, 1) .. id)
    redis.call('HSET', KEYS[1], id, entry)
  end
  results[#results + 1] = result
end
return {last, results}
"""

_DELETE = """
local before = redis.call('HGET', KEYS[1], ARGV[2])
if not before then return false end
local last = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'e', ARGV[3] .. ARGV[2])
redis.call('HDEL', KEYS[1], ARGV[2])
return last
"""

# Many values as one, and their lengths: the client takes that apart much sooner than it parses a reply of many.
_JOINED = """
local function joined(values)
  local lengths = {}
  for i = 1, #values do
    values[i] = values[i] or ''
    lengths[i] = struct.pack('<I4', #values[i])
  end
  return {table.concat(lengths), table.concat(values)}
end
"""

_SCAN = f"""{_JOINED}
local reply = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2])
local values = joined(reply[2])
return {{reply[1], values[1], values[2]}}
"""

_READ = f"{_JOINED} return joined(redis.call('HMGET', KEYS[1], unpack(ARGV)))"

_PREFIX = bytes([SCHEMA])


class Puts(NamedTuple):
    """What became of items, and the position of the last change, None where nothing changed."""

    results: list[Put]
    position: str | None


class Changes(NamedTuple):
    """The items that changed, as they are now."""

    items: list[Item]
    position: str  # of the last change
    behind_s: float  # time between that and the newest there is
    lost: bool  # whether there were others, which are gone from the stream


class Catalog:
    """Reads and writes the items in Redis. Everything raises RedisError where it cannot.

    Args:
        client: from `connections.connect_async`.
        names: whose `items` and `item_changes` they are.
        max_items: most items; a new one is refused beyond them.
        maxlen: about how many changes the stream keeps.
    """

    def __init__(self, client: redis.asyncio.Redis, names: StreamNames, *, max_items: int, maxlen: int) -> None:
        self._client, self._items, self._changes = client, names.items, names.item_changes
        self._max_items, self._maxlen = max_items, maxlen

    async def put(self, items: Sequence[tuple[str, bytes]]) -> Puts:
        """Writes (id, features as JSON), in this order and all at once."""
        arguments = [part for one, features in items for part in (one, _PREFIX + features)]
        last, results = await self._eval(_PUT, self._max_items, self._maxlen, *arguments)
        return Puts([result.decode() for result in results], last.decode() if last else None)

    async def delete(self, item_id: str) -> str | None:
        """The position of the change, None where there is no such item."""
        last = await self._eval(_DELETE, self._maxlen, item_id, _PREFIX)
        return last.decode() if last else None

    async def get(self, item_id: str) -> bytes | None:
        """Its entry."""
        found: Any = await self._client.hget(self._items, item_id)
        return None if found is None else bytes(found)

    async def end(self) -> str:
        """The position of the newest change."""
        info = await self._info()
        return info["last-generated-id"].decode() if info else START

    async def scan(self) -> AsyncIterator[list[Item]]:
        """All items that there are throughout, some of them twice; of those that come or go meanwhile any."""
        cursor = b"0"
        while True:
            cursor, lengths, joined = await self._eval(_SCAN, cursor, AT_A_TIME)
            values = _apart(lengths, joined)
            yield list(zip(values[::2], values[1::2], strict=True))
            if cursor == b"0":
                return

    async def changes(self, after: str, block_ms: int) -> Changes:
        """What changed after a position, `AT_A_TIME` at most; waits for it up to `block_ms` (at most 2 s)."""
        reply = await self._client.xread({self._changes: after}, count=AT_A_TIME, block=min(block_ms, LONGEST_BLOCK_MS))
        entries = entries_of(reply).get(self._changes, [])
        info = await self._info()  # after the entries: what was trimmed before they were read is seen to be gone
        ids = list({entry.payload[1:]: None for entry in entries if entry.payload[:1] == _PREFIX})
        values = _apart(*await self._eval(_READ, *ids)) if ids else []
        position = entries[-1].position if entries else after
        newest = info["last-generated-id"].decode() if info else position
        behind_s = max(0, order(newest)[0] - order(position)[0]) / 1e3
        items = [(one, value or None) for one, value in zip(ids, values, strict=True)]
        return Changes(items, position, behind_s, lost(info, after))

    async def _info(self) -> Mapping[str, Any] | None:
        """Of the stream, None where there is none."""
        try:
            info: Mapping[str, Any] = await self._client.xinfo_stream(self._changes)
        except ResponseError as error:
            if "no such key" not in str(error):
                raise
            return None
        return info

    async def _eval(self, script: str, *arguments: Any) -> Any:
        return await self._client.eval(script, 2, self._items, self._changes, *arguments)


def features_of(entry: bytes) -> bytes:
    """The JSON in an entry. Raises EventError schema_version."""
    if entry[:1] != _PREFIX:
        raise EventError("schema_version", f"this build reads items of schema {SCHEMA}, found {entry[:1]!r}")
    return entry[1:]


def _apart(lengths: bytes, joined: bytes) -> list[bytes]:
    ends = np.cumsum(np.frombuffer(lengths, "<u4")).tolist()
    return [joined[start:end] for start, end in zip([0, *ends], ends, strict=False)]
