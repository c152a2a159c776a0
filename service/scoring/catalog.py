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
from service.streams import START, StreamNames, lost, order

Put = Literal["created", "updated", "unchanged", "full"]
Loss = Literal["trimmed", "restored"]  # changes were removed before they were read; the server holds an older copy
Item = tuple[bytes, bytes | None]  # id and entry, None where it is gone; both as Redis has them

# Of one reply: they hold the server up for some milliseconds. What an older release wrote may be large.
AT_A_TIME = 1_000  # items
REPLY_BYTES = 256 * 1024  # after which no more are added

# Replies hold few values: for the client to parse many takes longer than all the rest, and holds up rankings.

# Both write the change first: where that fails, as in a server out of memory, nothing has happened. The results of a
# put are the keys of _RESULTS.
_PUT = """
local results, last = {}, false
for i = 3, #ARGV, 2 do
  local id, entry = ARGV[i], ARGV[i + 1]
  local before = redis.call('HGET', KEYS[1], id)
  local result = before and 'u' or 'c'
  if before == entry then
    result = 's'
  elseif not before and redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[1]) then
    result = 'f'
  else
    last = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'e', string.sub(entry, 1, 1) .. id)
    redis.call('HSET', KEYS[1], id, entry)
  end
  results[#results + 1] = result
end
return {last, table.concat(results)}
"""

_DELETE = """
local before = redis.call('HGET', KEYS[1], ARGV[2])
if not before then return false end
local last = redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'e', ARGV[3] .. ARGV[2])
redis.call('HDEL', KEYS[1], ARGV[2])
return last
"""

_RESULTS: dict[int, Put] = {ord("c"): "created", ord("u"): "updated", ord("s"): "unchanged", ord("f"): "full"}

# Values as their lengths and one text.
_JOINED = """
local function joined(values)
  local lengths = {}
  for i = 1, #values do
    lengths[i] = struct.pack('<I4', #values[i])
  end
  return {table.concat(lengths), table.concat(values)}
end
"""

# One step of HSCAN returns what shares a place in the table, however much it is.
_SCAN = f"""{_JOINED}
local cursor, values, size = ARGV[1], {{}}, 0
for _ = 1, tonumber(ARGV[2]) do
  local reply = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', 1)
  cursor = reply[1]
  for _, value in ipairs(reply[2]) do
    values[#values + 1] = value
    size = size + #value
  end
  if cursor == '0' or #values >= 2 * ARGV[2] or size >= tonumber(ARGV[3]) then break end
end
values = joined(values)
return {{cursor, values[1], values[2]}}
"""

# {position of the last change read, whether that before it still stands, ids and entries of the items, '' where one is
# gone}
_CHANGES = f"""{_JOINED}
local last, seen, values, size = ARGV[1], {{}}, {{}}, 0
local stands = #redis.call('XRANGE', KEYS[2], last, last)
for _, change in ipairs(redis.call('XRANGE', KEYS[2], '(' .. last, '+', 'COUNT', ARGV[2])) do
  last = change[1]
  local id = string.sub(change[2][2], 2)
  if change[2][1] == 'e' and string.sub(change[2][2], 1, 1) == ARGV[4] and not seen[id] then
    local entry = redis.call('HGET', KEYS[1], id) or ''
    seen[id] = true
    values[#values + 1] = id
    values[#values + 1] = entry
    size = size + #id + #entry
    if size >= tonumber(ARGV[3]) then break end
  end
end
values = joined(values)
return {{last, stands, values[1], values[2]}}
"""

_PREFIX = bytes([SCHEMA])


class Puts(NamedTuple):
    """What became of items, and the position of the last change, None where nothing changed."""

    results: list[Put]
    position: str | None


class Changes(NamedTuple):
    """The items that changed, as they are now."""

    items: list[Item]
    position: str  # of the last change read
    behind_s: float  # time between that and the newest there is
    lost: Loss | None  # why there were others that are not among them, or those read before are no more


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
        return Puts([_RESULTS[one] for one in results], last.decode() if last else None)

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
            cursor, lengths, joined = await self._eval(_SCAN, cursor, AT_A_TIME, REPLY_BYTES)
            yield _pairs(lengths, joined)
            if cursor == b"0":
                return

    async def changes(self, after: str, block_ms: int) -> Changes:
        """What changed after a position, or a part of it; waits for it up to `block_ms` (at most 2 s)."""
        await self._client.xread({self._changes: after}, count=1, block=min(block_ms, LONGEST_BLOCK_MS))
        reply = await self._eval(_CHANGES, after, AT_A_TIME, REPLY_BYTES, _PREFIX)
        last, stands, lengths, joined = reply
        info = await self._info()  # after the changes: what was trimmed before they were read is seen to be gone
        position = last.decode()
        newest = info["last-generated-id"].decode() if info else position
        behind_s = max(0, order(newest)[0] - order(position)[0]) / 1e3
        return Changes(_pairs(lengths, joined), position, behind_s, _loss(info, after, stands=bool(stands)))

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


def _loss(info: Mapping[str, Any] | None, after: str, *, stands: bool) -> Loss | None:
    """Why changes after a position are gone, None where none are.

    Args:
        info: XINFO STREAM, None where there is no stream.
        stands: whether the change at the position is there. An older copy lacks it, whatever was added since; it may
            also have been trimmed, but then so was all before it.
    """
    if info is not None:
        newest, first = order(info["last-generated-id"].decode()), info["first-entry"]
        missing = not stands and first is not None and order(first[0].decode()) <= order(after) < newest
        if missing or newest < order(after):
            return "restored"
    return "trimmed" if lost(info, after) else None


def _pairs(lengths: bytes, joined: bytes) -> list[Item]:
    ends = np.cumsum(np.frombuffer(lengths, "<u4")).tolist()
    values = [joined[start:end] for start, end in zip([0, *ends], ends, strict=False)]
    return [(one, entry or None) for one, entry in zip(values[::2], values[1::2], strict=True)]
