"""Redating: entries whose ids lie far in the future come back to now.

Servers date entries by their own clock, but whoever writes to a stream may set an id, and a stream's ids ascend: after
one entry of the year 2100 all behind it bear that year, too, or the server refuses them. None of them would be read
before its time, for until then its place in the order is not certain.

So the first reader who meets such entries has the server date them anew, as of now, in their order and in one step.
None is lost, innocent ones least. And what was decided is part of the log: whoever reads it again finds the new ids, so
that weights still depend on what the log holds, and on nothing that a reader's clock said.
"""

import redis

#: Readers wait for entries dated less than this ahead: a server's clock may step back, or its successor's be behind.
FUTURE_MS = 60_000

# ARGV: our position, and the last id that is not far ahead. A stream's last id never goes back, so another one is
# written in its place. Its counts and the mark of what was deleted (Redis 7.0) are as if the entries had come but now:
# readers conclude from them whether something was removed unread. So it is with what was deleted in the future. Of an
# entry with more fields than a call has room for, only the one that readers look at is kept.
_REDATE = """
local key, other = KEYS[1], KEYS[2]
local function add(id, fields)
  if #fields > 1000 then
    local payload = ''
    for i = 1, #fields, 2 do if fields[i] == 'e' then payload = fields[i + 1] end end
    fields = {'e', payload}
  end
  return redis.call('XADD', other, id, unpack(fields))
end
local function padded(id)
  local ms, seq = string.match(id, '(%d+)-(%d+)')
  return string.rep('0', 20 - #ms) .. ms .. string.rep('0', 20 - #seq) .. seq
end
local future = redis.call('XRANGE', key, '(' .. ARGV[2], '+')
if #future == 0 then return 0 end
local info, was = redis.call('XINFO', 'STREAM', key), {}
for i = 1, #info, 2 do was[info[i]] = info[i + 1] end
redis.call('DEL', other)
redis.call('XGROUP', 'CREATE', other, 'none', '$', 'MKSTREAM')
redis.call('XGROUP', 'DESTROY', other, 'none')
local deleted = was['max-deleted-entry-id'] or '0-0'
local top, from = '0-0', '-'
repeat
  local part = redis.call('XRANGE', key, from, ARGV[2], 'COUNT', 1000)
  for _, entry in ipairs(part) do
    top = add(entry[1], entry[2])
  end
  from = '(' .. top
until #part == 0
local added, deleted_ahead = (was['entries-added'] or 0) - #future, padded(deleted) > padded(ARGV[2])
if deleted_ahead then added, deleted = added - 1, '0-0' end
local last = top
for _, id in ipairs({ARGV[1], deleted}) do
  if padded(id) > padded(last) then last = id end
end
if was['entries-added'] then
  redis.call('XSETID', other, last, 'ENTRIESADDED', added, 'MAXDELETEDID', deleted)
else
  redis.call('XSETID', other, last)
end
if deleted_ahead then redis.call('XDEL', other, redis.call('XADD', other, '*', 'e', '')) end
for _, entry in ipairs(future) do add('*', entry[2]) end
redis.call('RENAME', other, key)
return #future
"""


def redate(client: redis.Redis, stream: str, *, after: tuple[int, int], now_ms: int) -> int:
    """Has the server date what is more than FUTURE_MS ahead. Returns how many entries. Raises RedisError.

    The server does nothing else meanwhile: seconds, where the stream holds a million entries.

    Nothing happens where our own position is that far ahead: then it is the server's clock that is wrong.

    Args:
        client: from `connections.connect`.
        after: (ms, seq) of the last entry read; none comes to stand before it.
        now_ms: the server's time.
    """
    limit_ms = now_ms + FUTURE_MS
    if after[0] > limit_ms:
        return 0
    return int(
        client.eval(_REDATE, 2, stream, f"{stream}:redating", f"{after[0]}-{after[1]}", f"{limit_ms}-{2**64 - 1}")
    )
