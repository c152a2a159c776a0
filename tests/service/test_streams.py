"""The order of the log depends on its entries alone."""

import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError

from service.appends import append_batch
from service.connections import connect
from service.redating import FUTURE_MS
from service.streams import START, Entry, LogReader, StreamNames, order
from service.valkey import EmbeddedServer

AHEAD_MS = FUTURE_MS // 2


def follow(reader: LogReader, positions: dict[str, str], *, block_ms: int = 0) -> list[Entry]:
    """All there is to read; advances positions."""
    entries: list[Entry] = []
    while chunk := reader.read(positions, block_ms=block_ms):
        entries += chunk
        positions |= {entry.stream: entry.position for entry in chunk}
    return entries


def test_a_partition_shares_a_hash_tag() -> None:
    names = StreamNames("agerank", 2)
    assert names.inputs == (
        "agerank:{0}:served",
        "agerank:{0}:feedback",
        "agerank:{1}:served",
        "agerank:{1}:feedback",
    )
    assert (names.models, names.dead) == ("agerank:models", "agerank:dead")
    for number in range(50):
        request_id = f"request-{number}"
        partition = names.served(request_id).removesuffix(":served")
        assert names.served(request_id) in names.inputs
        assert names.feedback(request_id) == f"{partition}:feedback"
        assert names.event(request_id, "click:1") == f"{partition}:event:click:1"


def test_requests_spread_over_partitions_the_same_way_forever() -> None:
    """A change here would send a request's feedback elsewhere than its impressions of before the upgrade."""
    names = StreamNames("a", 8)
    found = [names.served(one) for one in ("", "r-1", "r-2", "\u00e9")]
    assert found == ["a:{2}:served", "a:{7}:served", "a:{6}:served", "a:{3}:served"]
    assert {names.served(str(number)) for number in range(200)} == set(names.inputs[::2])


def test_positions_compare_as_numbers() -> None:
    positions = ["9-9", "10-0", "9-10", START]
    assert sorted(positions, key=order) == [START, "9-9", "9-10", "10-0"]
    assert Entry("s", "1700000000000-3", b"").time_ms == 1_700_000_000_000


@st.composite
def histories(draw: st.DrawFn) -> list[list[tuple[int, int, int]]]:
    """Batches of (ms, seq, stream number), ascending within and over batches; ties between streams are common."""
    places = draw(st.sets(st.tuples(st.integers(1, 12), st.integers(0, 2), st.integers(0, 3)), max_size=40))
    cuts = draw(st.lists(st.integers(0, len(places)), max_size=3).map(sorted))
    ranked = sorted(places)
    return [ranked[start:end] for start, end in zip([0, *cuts], [*cuts, len(ranked)], strict=True)]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(histories(), st.integers(1, 7), st.integers(1, 7))
def test_the_order_does_not_depend_on_chunks_or_restarts(
    client: redis.Redis, history: list[list[tuple[int, int, int]]], count: int, other_count: int
) -> None:
    names = StreamNames(f"test-{uuid4().hex}", 2)
    streams = sorted(names.inputs)
    expected = [(streams[number], f"{ms}-{seq}") for batch in history for ms, seq, number in batch]
    positions: dict[str, str] = {}
    found: list[Entry] = []
    for batch in history:  # read in between, as a trainer that follows an ingest
        append_batch(client, [(streams[number], b"%d" % number, f"{ms}-{seq}") for ms, seq, number in batch])
        found += follow(LogReader(client, names, count=count), positions)
    assert [(entry.stream, entry.position) for entry in found] == expected
    assert all(entry.payload == b"%d" % streams.index(entry.stream) for entry in found)
    assert follow(LogReader(client, names, count=other_count), {}) == found  # from the start, at once


def test_entries_that_the_server_dates_come_in_one_order_while_they_are_written(
    client: redis.Redis, redis_url: str, names: StreamNames
) -> None:
    """Four writers and a reader at the same time: later readers of the whole log see what this one saw."""

    def write(stream: str) -> None:
        with connect(redis_url, name="test") as own:
            for number in range(250):
                append_batch(own, [(stream, b"%d" % number, None)])

    writers = [threading.Thread(target=write, args=[stream]) for stream in names.inputs]
    for writer in writers:
        writer.start()
    reader, positions, found = LogReader(client, names, count=5), {}, []
    while len(found) < 1_000:
        chunk = reader.read(positions, block_ms=2_000)
        assert chunk
        positions |= {entry.stream: entry.position for entry in chunk}
        found += chunk
    for writer in writers:
        writer.join()
    assert found == sorted(found, key=lambda entry: (order(entry.position), entry.stream))
    assert follow(LogReader(client, names), {}) == found
    for stream in names.inputs:
        assert [entry.payload for entry in found if entry.stream == stream] == [b"%d" % one for one in range(250)]


def test_a_waiting_reader_wakes(client: redis.Redis, redis_url: str, names: StreamNames) -> None:
    found: list[Entry] = []

    def wait() -> None:
        with connect(redis_url, name="waiting") as own:
            found.extend(LogReader(own, names).read({}, block_ms=2_000))

    waiting = threading.Thread(target=wait)
    waiting.start()
    deadline = time.monotonic() + 10
    while not any(one["name"] == "waiting" and "b" in one["flags"] for one in client.client_list()):
        assert time.monotonic() < deadline
    started = time.monotonic()
    append_batch(client, [(names.inputs[3], b"payload", None)])
    waiting.join()
    assert time.monotonic() - started < 1.0
    assert [entry.payload for entry in found] == [b"payload"]


def test_nothing_to_read_takes_the_time_that_was_given(client: redis.Redis, names: StreamNames) -> None:
    reader, started = LogReader(client, names), time.monotonic()
    assert reader.read({}, block_ms=0) == []
    assert time.monotonic() - started < 0.1
    assert reader.read({}, block_ms=150) == []
    assert time.monotonic() - started > 0.14


@pytest.mark.parametrize("count", [1, 10])
def test_an_entry_ahead_of_the_clock_waits_without_a_storm_and_blocks_no_other(
    client: redis.Redis, names: StreamNames, count: int
) -> None:
    reader, (early, late, *_) = LogReader(client, names, count=count), names.inputs
    seconds, _ = client.time()
    ahead = [(late, b"ahead", f"{seconds * 1000 + AHEAD_MS}-{seq}") for seq in range(3)]
    append_batch(client, [*ahead, (early, b"now", None)])
    entries = reader.read({}, block_ms=2_000)
    assert [entry.payload for entry in entries] == [b"now"]
    before = client.info("commandstats")["cmdstat_xread"]["calls"]
    assert reader.read({early: entries[0].position}, block_ms=150) == []
    assert client.info("commandstats")["cmdstat_xread"]["calls"] - before <= 5


def test_large_entries_are_fetched_a_few_at_a_time_and_small_ones_again_many(
    client: redis.Redis, names: StreamNames
) -> None:
    stream = names.inputs[0]
    append_batch(client, [(stream, bytes(size), None) for size in [10] * 30 + [1_000] * 20 + [10] * 40])
    reader, positions, chunks = LogReader(client, names, count=20, size=5_000), {}, []
    while chunk := reader.read(positions, block_ms=50):
        chunks.append([len(entry.payload) for entry in chunk])
        positions |= {entry.stream: entry.position for entry in chunk}
    assert sum(chunks, []) == [10] * 30 + [1_000] * 20 + [10] * 40
    assert [len(chunk) for chunk in chunks] == [20, 20, 5, 5, 5, 20, 15]


def test_a_large_entry_slows_down_no_other_stream(client: redis.Redis, names: StreamNames) -> None:
    """It is there in every fetch until its turn has come."""
    append_batch(client, [(names.inputs[0], b"small", None)] * 90)
    append_batch(client, [(names.inputs[1], bytes(5_000), None)])
    reader, positions, chunks = LogReader(client, names, count=20, size=5_000), {}, []
    while chunk := reader.read(positions, block_ms=50):
        chunks.append(len(chunk))
        positions |= {entry.stream: entry.position for entry in chunk}
    assert chunks[:4] == [20] * 4


def test_an_entry_without_the_field_is_there_with_nothing_in_it(client: redis.Redis, names: StreamNames) -> None:
    client.xadd(names.inputs[0], {"other": b"x"})
    assert [entry.payload for entry in LogReader(client, names).read({}, block_ms=1_000)] == [b""]


def test_a_server_that_is_gone_is_the_callers_to_handle(tmp_path: Path, names: StreamNames) -> None:
    with EmbeddedServer(tmp_path) as server, connect(server.url, name="test") as client:
        reader = LogReader(client, names)
        server.stop()
        for call in (lambda: reader.read({}, block_ms=0), lambda: reader.lag({})):
            with pytest.raises(RedisConnectionError):
                call()
