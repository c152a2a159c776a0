"""What the log has lost. It is to hold every entry until the trainer has read it; this finds out where it did not.

trimmed     entries were removed before they were read
emptied     nothing of the stream is left: a restart without the append-only file, FLUSHALL, DEL
restored    the server holds an older copy than it did: a backup, or a replica that lagged when it took over

After the last two, new entries may get ids at or before our position, after which no reader looks. So a gap says from
where to go on. What is then read for a second time is dropped by the join, which remembers requests and event ids for
at least two attribution windows.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import redis
from redis.exceptions import ResponseError

from service.redating import FUTURE_MS
from service.streams import START, Entry, lost, order

_TIME = "return redis.call('TIME')"  # of the server that has this key

Reason = Literal["trimmed", "emptied", "restored"]


class Gap(NamedTuple):
    """Entries of a stream that nobody will read any more."""

    stream: str
    reason: Reason
    position: str  # from which to go on


class _Info(NamedTuple):
    """XINFO STREAM."""

    raw: dict[str, Any]
    first: str | None  # entry that stands
    last: str | None
    newest: str  # that there ever was
    deleted: str  # the newest that XDEL took
    added: int | None  # entries ever; servers before 7.0 do not count them
    removed: int | None


class _Known(NamedTuple):
    """What a stream was at the last look."""

    last: str = START  # entry that stood
    added: int | None = None
    read: int | None = None  # how many of these come up to our position, None where we cannot tell
    trimmed: str | None = None  # position at which it was last found so, and is until more is read


class _Seen(NamedTuple):
    """What a stream is now."""

    stream: str
    info: _Info | None  # None where there is no such stream
    now_ms: int  # by its server
    stand: tuple[bool, bool]  # entries: that at our position before the read, the last one at the last look


class GapFinder:
    """Compares a server with what it is known to have held. To be asked after every read, from the first on.

    Args:
        client: from `connections.connect`.
        streams: that are read.
        window_ms: attribution window; so far we go back on a server that holds an older copy.
    """

    def __init__(self, client: redis.Redis, streams: Sequence[str], *, window_ms: int) -> None:
        self._client, self._window_ms = client, window_ms
        self._known = dict.fromkeys(streams, _Known())

    def find(self, before: Mapping[str, str], entries: Sequence[Entry]) -> list[Gap]:
        """What was lost since we were last asked, each once. Raises RedisError.

        Args:
            before: positions before the last read.
            entries: that it gave.
        """
        read: dict[str, list[str]] = {stream: [] for stream in self._known}
        for entry in entries:
            read[entry.stream].append(entry.position)
        gaps, now = [], {}
        for seen in self._look(before):
            stream, position = seen.stream, before.get(seen.stream, START)
            gap, known = self._gap(seen, position, read[stream]), self._known[stream]
            if gap and (gap.reason != "trimmed" or known.trimmed != position):
                gaps.append(gap)
            now[stream] = _now(seen, known, gap, position, read[stream])
        self._known = now  # not before: a call that fails is made again
        return gaps

    def _look(self, before: Mapping[str, str]) -> list[_Seen]:
        # The entries first: one that is trimmed between the two is older than the first entry that XINFO tells.
        with self._client.pipeline(transaction=False) as pipe:
            for stream, known in self._known.items():
                for position in (before.get(stream, START), known.last):
                    pipe.xrange(stream, position, position)
                pipe.xinfo_stream(stream)
                pipe.execute_command("EVAL", _TIME, 1, stream)  # type: ignore[no-untyped-call]
            replies = [_reply(one) for one in pipe.execute(raise_on_error=False)]
        rows = zip(self._known, *(replies[place::4] for place in range(4)), strict=True)
        return [
            _Seen(stream, info and _info(info), 1000 * int(time[0]), (bool(ours), bool(last)))
            for stream, ours, last, info, time in rows
        ]

    def _gap(self, seen: _Seen, before: str, read: Sequence[str]) -> Gap | None:
        stream, info, known = seen.stream, seen.info, self._known[seen.stream]
        after = read[-1] if read else before
        last = max(known.last, before, key=order)
        if info is None:
            return None if last == after == START else Gap(stream, "emptied", START)
        missing = _missing(info, before, stands=seen.stand[0]) or order(info.newest) < order(after)
        if missing or _missing(info, known.last, stands=seen.stand[1]) or _anew(info, known, before):
            if info.first is None or order(info.first) > order(last):
                return Gap(stream, "emptied", START if info.first is None else after)
            return Gap(stream, "restored", self._back(stream, before) if missing else after)
        count = _count(info, known, before)
        # Where it is known, the very entry at our position may be gone, too, and some of what was read just now.
        unread = count is None or (info.removed or 0) > count + _trimmed(info, read)
        deleted = order(info.deleted) > order(before)
        return Gap(stream, "trimmed", after) if (unread or deleted) and lost(info.raw, before) else None

    def _back(self, stream: str, position: str) -> str:
        """The last entry that is an attribution window older than a position."""
        until_ms = max(order(position)[0] - self._window_ms, 0)
        found: Any = self._client.xrevrange(stream, f"{until_ms}-0", count=1)
        return found[0][0].decode() if found else START


def _missing(info: _Info, position: str, *, stands: bool) -> bool:
    """Whether an entry that there was is not there, though neither trimming nor XDEL explains it."""
    if position == START or stands or order(info.deleted) >= order(position):
        return False
    return order(info.newest) < order(position) or (info.first is not None and order(info.first) <= order(position))


def _anew(info: _Info, known: _Known, before: str) -> bool:
    """Whether the stream counts fewer entries than there were, or fewer removed ones than are gone."""
    if info.added is None or info.removed is None:
        return False
    gone = before != START and (info.first is None or order(info.first) > order(before))
    return info.added < (known.added or 0) or (gone and info.removed < (known.read or 1))


def _count(info: _Info, known: _Known, before: str) -> int | None:
    """How many of the entries ever added come up to our position, None where we cannot tell."""
    if info.added is None:
        return None
    return 0 if known.read is None and before == START else known.read


def _trimmed(info: _Info, read: Sequence[str]) -> int:
    """How many of these entries, which stood a moment ago, do not any more."""
    return len(read) if info.first is None else sum(order(one) < order(info.first) for one in read)


def _now(seen: _Seen, known: _Known, gap: Gap | None, before: str, read: Sequence[str]) -> _Known:
    """What is known from now on.

    Args:
        before: our position before the last read.
        read: the entries that it gave.
    """
    info = seen.info
    if info is None:
        return _Known()
    if gap:
        count = info.removed if gap.position == START else None
    elif (read[-1] if read else before) == info.newest:
        count = info.added
    else:
        count = _count(info, known, before)
        count = None if count is None else count + len(read)
    # What lies far ahead may come back to now under another id.
    ahead = info.last is not None and order(info.last)[0] > seen.now_ms + FUTURE_MS
    last = START if info.last is None or ahead else info.last
    return _Known(last, info.added, count, before if gap and gap.reason == "trimmed" else None)


def _reply(reply: Any) -> Any:
    """None for a stream that does not exist. Raises any other error."""
    if isinstance(reply, ResponseError) and "no such key" in str(reply):
        return None
    if isinstance(reply, Exception):
        raise reply
    return reply


def _info(raw: dict[str, Any]) -> _Info:
    first, added = raw["first-entry"], raw.get("entries-added")
    return _Info(
        raw=raw,
        first=None if first is None else first[0].decode(),
        last=None if raw["last-entry"] is None else raw["last-entry"][0].decode(),
        newest=raw["last-generated-id"].decode(),
        deleted=raw.get("max-deleted-entry-id", START.encode()).decode(),
        added=added,
        removed=None if added is None else added - raw["length"],
    )
