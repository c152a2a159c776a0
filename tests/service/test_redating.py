"""Entries of the future, on a real server: they come back in their order, once, and nobody sees a loss."""

from collections.abc import Iterator

import pytest
import redis
from redis.exceptions import ResponseError

from service.appends import append_batch
from service.gaps import GapFinder
from service.redating import FUTURE_MS, redate
from service.streams import START, Entry, LogReader, StreamNames, order

YEAR_MS = 365 * 24 * 3_600_000
MOST = 2**64 - 1


@pytest.fixture
def now_ms(client: redis.Redis) -> int:
    return client.time()[0] * 1000


@pytest.fixture
def told() -> list[tuple[str, int]]:
    return []


@pytest.fixture
def reader(client: redis.Redis, names: StreamNames, told: list[tuple[str, int]]) -> LogReader:
    return LogReader(client, names, count=5, redated=lambda stream, number: told.append((stream, number)))


def chunks(reader: LogReader, positions: dict[str, str]) -> Iterator[list[Entry]]:
    while chunk := reader.read(positions, block_ms=100):
        yield chunk
        positions |= {entry.stream: entry.position for entry in chunk}


@pytest.mark.parametrize("ahead_ms", [FUTURE_MS + 60_000, YEAR_MS])
@pytest.mark.parametrize("read_before", [0, 2])
def test_who_is_behind_an_entry_of_the_future_is_read_now(
    client: redis.Redis,
    names: StreamNames,
    reader: LogReader,
    told: list[tuple[str, int]],
    now_ms: int,
    ahead_ms: int,
    read_before: int,
) -> None:
    stream, other = names.inputs[:2]
    positions: dict[str, str] = {}
    gaps = GapFinder(client, names.inputs, window_ms=1_000)
    append_batch(client, [(stream, b"early", None)] * read_before)
    read = [entry for chunk in chunks(reader, positions) for entry in chunk]
    assert gaps.find({}, read) == []
    append_batch(client, [(stream, b"0", f"{now_ms + ahead_ms}-7")])
    append_batch(client, [(stream, b"%d" % number, None) for number in range(1, 12)])  # innocent, and years ahead
    append_batch(client, [(other, b"other", None)])
    before = dict(positions)
    late = [entry for chunk in chunks(reader, positions) for entry in chunk]
    assert [entry.payload for entry in late if entry.stream == stream] == [b"%d" % number for number in range(12)]
    assert [entry.payload for entry in late if entry.stream == other] == [b"other"]
    assert all(now_ms <= entry.time_ms < now_ms + 10_000 for entry in late)
    assert told == [(stream, 12)]
    assert gaps.find(before, late) == []
    position = append_batch(client, [(stream, b"next", None)])[0]
    assert order(position)[0] < now_ms + 10_000
    assert client.xinfo_stream(stream)["entries-added"] == client.xlen(stream) == read_before + 13


def test_the_log_says_the_same_to_whoever_reads_it_again(
    client: redis.Redis, names: StreamNames, reader: LogReader, now_ms: int
) -> None:
    append_batch(client, [(names.inputs[0], b"%d" % seq, f"{now_ms + YEAR_MS}-{seq}") for seq in range(9)])
    found = [entry for chunk in chunks(reader, {}) for entry in chunk]
    again = LogReader(client, names, redated=lambda *_: pytest.fail("once is enough"))
    assert [entry for chunk in chunks(again, {}) for entry in chunk] == found


def test_whoever_keeps_doing_it_holds_up_nobody_but_his_partition(
    client: redis.Redis, names: StreamNames, reader: LogReader, told: list[tuple[str, int]], now_ms: int
) -> None:
    stream, other = names.inputs[1], names.inputs[2]
    positions: dict[str, str] = {}
    found = []
    for number in range(3):
        append_batch(client, [(stream, b"far", f"{now_ms + YEAR_MS}-{number}"), (other, b"now", None)])
        found += [entry.payload for chunk in chunks(reader, positions) for entry in chunk]
    assert sorted(found) == [b"far", b"now", b"now", b"now"]
    assert told == [(stream, 1)]


def test_a_stream_that_takes_no_more_entries_does_again(
    client: redis.Redis, names: StreamNames, reader: LogReader, now_ms: int
) -> None:
    stream = names.inputs[0]
    append_batch(client, [(stream, b"last", f"{MOST}-{MOST}")])
    with pytest.raises(ResponseError, match="exhausted"):
        append_batch(client, [(stream, b"refused", None)])
    assert [entry.payload for chunk in chunks(reader, {}) for entry in chunk] == [b"last"]
    append_batch(client, [(stream, b"taken", None)])
    assert client.xlen(stream) == 2


def test_no_entry_comes_to_stand_before_one_that_was_read(client: redis.Redis, names: StreamNames, now_ms: int) -> None:
    """The server's clock stepped back behind our position: by little, and by much."""
    stream = names.inputs[0]
    append_batch(client, [(stream, b"", f"{now_ms + 30_000}-0"), (stream, b"far", f"{now_ms + YEAR_MS}-0")])
    assert redate(client, stream, after=(now_ms + 2 * FUTURE_MS, 0), now_ms=now_ms) == 0
    client.xtrim(stream, maxlen=1)
    assert redate(client, stream, after=(now_ms + 30_000, 0), now_ms=now_ms) == 1
    assert client.xinfo_stream(stream)["last-generated-id"].decode() == f"{now_ms + 30_000}-1"


def test_what_was_deleted_before_stays_known(client: redis.Redis, names: StreamNames, now_ms: int) -> None:
    stream = names.inputs[0]
    _, deleted = append_batch(client, [(stream, b"", None), (stream, b"", None)])
    client.xdel(stream, deleted)
    append_batch(client, [(stream, b"far", f"{now_ms + YEAR_MS}-0")])
    assert redate(client, stream, after=order(START), now_ms=now_ms) == 1
    info = client.xinfo_stream(stream)
    assert (info["max-deleted-entry-id"].decode(), info["entries-added"]) == (deleted, 3)


def test_an_operator_who_deletes_it_loses_it_and_nothing_else(
    client: redis.Redis, names: StreamNames, reader: LogReader, now_ms: int
) -> None:
    """Behind a deleted entry of the future ids go on from there, too."""
    stream = names.inputs[0]
    positions: dict[str, str] = {}
    gaps = GapFinder(client, names.inputs, window_ms=1_000)
    append_batch(client, [(stream, b"0", None)] * 3)
    assert gaps.find({}, [entry for chunk in chunks(reader, positions) for entry in chunk]) == []
    client.xdel(stream, append_batch(client, [(stream, b"gone", f"{now_ms + YEAR_MS}-7")])[0])
    append_batch(client, [(stream, b"1", None)])
    before = dict(positions)
    late = [entry for chunk in chunks(reader, positions) for entry in chunk]
    assert [entry.payload for entry in late] == [b"1"]
    assert late[0].time_ms < now_ms + 10_000
    assert [one.reason for one in gaps.find(before, late)] == ["trimmed"]
    assert client.xinfo_stream(stream)["entries-added"] == 5


def test_entries_of_any_shape_are_dated_anew(
    client: redis.Redis, names: StreamNames, reader: LogReader, now_ms: int
) -> None:
    """A call within the server takes some thousands of arguments."""
    stream, many = names.inputs[0], {f"field {number}": b"" for number in range(9_000)}
    for content in ({b"e": b"0"}, {**many, b"e": b"1"}, many):
        client.xadd(stream, content)
        client.xadd(names.inputs[1], content, id="*" if client.exists(names.inputs[1]) else f"{now_ms + YEAR_MS}-0")
    client.xadd(stream, {b"e": b"3"}, id=f"{now_ms + YEAR_MS}-0")
    found = [entry for chunk in chunks(reader, {}) for entry in chunk]
    assert [entry.payload for entry in found if entry.stream == stream] == [b"0", b"1", b"", b"3"]
    assert [entry.payload for entry in found if entry.stream != stream] == [b"0", b"1", b""]


def test_what_came_back_only_later_was_not_lost(
    client: redis.Redis, names: StreamNames, reader: LogReader, now_ms: int
) -> None:
    stream = names.inputs[0]
    positions: dict[str, str] = {}
    gaps = GapFinder(client, names.inputs, window_ms=1_000)
    append_batch(client, [(stream, b"0", None), (stream, b"far", f"{now_ms + YEAR_MS}-0")])
    assert gaps.find({}, []) == []  # a reader that may not do it yet
    for chunk in chunks(reader, positions):
        assert gaps.find({}, chunk) == []
    assert len(positions) == 1
