"""Writing to the log, and hearing of new models. See `service.streams` for the streams themselves."""

from collections.abc import Sequence

import redis
import redis.asyncio

from service.clusters import together
from service.connections import LONGEST_BLOCK_MS
from service.events import Announcement, Event, encode
from service.streams import FIELD, Entry, StreamNames, entries_of

# Appends each event unless its key says that it was appended before. The key is set last: an append that fails leaves
# no trace, so that the caller's retry is not taken for a duplicate.
_APPEND_NEW = """
local added = {}
for i = 2, #KEYS do
  added[i - 1] = 0
  if redis.call('EXISTS', KEYS[i]) == 0 then
    redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'e', ARGV[i + 1])
    redis.call('SET', KEYS[i], '', 'PX', ARGV[1])
    added[i - 1] = 1
  end
end
return added
"""


# One command for many entries: its client has one to pack and one reply to parse, which is most of the cost of each.
_APPEND = """
for i = 2, #ARGV do
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'e', ARGV[i])
end
return #ARGV - 1
"""


def append_batch(
    client: redis.Redis, entries: Sequence[tuple[str, bytes, str | None]], *, maxlen: int | None = None
) -> list[str]:
    """Appends all entries at once: a reader sees all of them or none. In a cluster: those of each partition.

    Args:
        client: from `connections.connect`.
        entries: (stream, payload, position). Without a position the server dates the entry. Batches that date their
            entries themselves must ascend in (ms, seq, stream), within a batch and from one to the next.
        maxlen: about how many entries the streams keep, None for all.

    Returns:
        The positions.
    """
    positions = [""] * len(entries)
    for streams in together(client, dict.fromkeys(stream for stream, *_ in entries)):
        with client.pipeline(transaction=True) as pipe:
            numbers = [number for number, (stream, *_) in enumerate(entries) if stream in streams]
            for stream, payload, position in (entries[number] for number in numbers):
                pipe.xadd(stream, {FIELD: payload}, id=position or "*", maxlen=maxlen)
            for number, position in zip(numbers, pipe.execute(), strict=True):
                positions[number] = position.decode()
    return positions


async def append_events(
    client: redis.asyncio.Redis, names: StreamNames, events: Sequence[Event], ttl_s: float, *, maxlen: int
) -> list[bool]:
    """Appends each event whose id was not seen for `ttl_s`. A retry after an error loses and doubles nothing.

    Returns:
        For each event whether it was appended now; False: a duplicate.
    """
    partitions: dict[str, list[int]] = {}
    for number, event in enumerate(events):
        partitions.setdefault(names.feedback(event.request_id), []).append(number)
    async with client.pipeline(transaction=False) as pipe:
        for stream, members in partitions.items():
            keys = [names.event(events[number].request_id, events[number].id) for number in members]
            payloads = [encode(events[number]) for number in members]
            pipe.eval(_APPEND_NEW, 1 + len(keys), stream, *keys, round(ttl_s * 1000), maxlen, *payloads)
        replies = await pipe.execute()
    added = [False] * len(events)
    for members, reply in zip(partitions.values(), replies, strict=True):
        for number, one in zip(members, reply, strict=True):
            added[number] = bool(one)
    return added


async def append_served(client: redis.asyncio.Redis, records: Sequence[tuple[str, bytes]], maxlen: int) -> None:
    """Appends encoded served records, each to its stream, in one round trip.

    At most 1,000. A retry may double some; the join takes the first of each request.
    """
    streams: dict[str, list[bytes]] = {}
    for stream, payload in records:
        streams.setdefault(stream, []).append(payload)
    async with client.pipeline(transaction=False) as pipe:
        for stream, payloads in streams.items():
            pipe.eval(_APPEND, 1, stream, maxlen, *payloads)
        await pipe.execute()


async def announce(client: redis.asyncio.Redis, names: StreamNames, announcement: Announcement, *, maxlen: int) -> None:
    """Tells all scorers what is current."""
    await client.xadd(names.models, {FIELD: encode(announcement)}, maxlen=maxlen)


async def next_announcement(client: redis.asyncio.Redis, names: StreamNames, after: str, block_ms: int) -> Entry | None:
    """The newest announcement after the position `after` ("$": of now); older ones no longer matter.

    None where none came for `block_ms` (at most 2 s).
    """
    reply = await client.xread({names.models: after}, block=min(block_ms, LONGEST_BLOCK_MS))
    announcements = entries_of(reply).get(names.models)
    return announcements[-1] if announcements else None
