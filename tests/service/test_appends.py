"""Appends lose nothing and double nothing, whatever fails in between."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest
import redis
import redis.asyncio
from redis.exceptions import RedisError, ResponseError

from service.appends import append_batch, append_events, append_served
from service.connections import connect, connect_async
from service.events import Event, Served, decode_event, decode_served, encode
from service.streams import LogReader, StreamNames
from service.valkey import EmbeddedServer

DAY_S = 86_400.0
PLENTY = 1_000_000


@pytest.fixture
async def aclient(redis_url: str) -> AsyncIterator[redis.asyncio.Redis]:
    async with connect_async(redis_url, name="test") as client:
        yield client


def clicks(count: int) -> list[Event]:
    return [Event(id=f"e-{one}", type="click", request_id=f"r-{one}", item_id="a") for one in range(count)]


def appended(client: redis.Redis, names: StreamNames) -> list[Event]:
    """All events of the log, in the order of their ids; fails on one in a partition that is not its own."""
    events = []
    for stream in names.inputs:
        for _, fields in client.xrange(stream):
            event = decode_event(fields[b"e"])
            assert names.feedback(event.request_id) == stream
            events.append(event)
    return sorted(events, key=lambda event: int(event.id.removeprefix("e-")))


async def send_until_it_fails(client: redis.asyncio.Redis, names: StreamNames, events: list[Event]) -> list[Event]:
    """Sends them one by one; those that were accepted."""
    accepted = []
    try:
        for event in events:
            accepted += [event] * sum(await append_events(client, names, [event], DAY_S, maxlen=PLENTY))
    except RedisError:
        return accepted
    pytest.fail("nothing failed")


def sent(names: StreamNames, records: Sequence[Served]) -> list[tuple[str, bytes]]:
    """As the outbox hands them over."""
    return [(names.served(one.request_id), encode(one)) for one in records]


def a_served(request_id: str) -> Served:
    return Served(
        request_id=request_id,
        time_ms=1,
        lane="default",
        strategy="greedy",
        version=0,
        lambda_=0.0,
        seed=1,
        spec_hash="0",
        bucket=None,
        context_index=b"",
        context_weight=b"",
        item_ids=["a"],
        item_index=b"\x01\x00\x00\x00",
        item_weight=b"\x00\x00\x80\x3f",
        p_click=[0.5],
        score=[0.5],
        explored=[False],
        impressions=[0],
        propensity=None,
    )


def test_a_reader_sees_all_of_a_batch_or_none(client: redis.Redis, redis_url: str, names: StreamNames) -> None:
    def write() -> None:
        with connect(redis_url, name="test") as own:
            for _ in range(60):
                append_batch(own, [(stream, bytes(8_000), None) for stream in names.inputs * 5])  # in many packets

    writer = threading.Thread(target=write)
    writer.start()
    reader, positions, found = LogReader(client, names), {}, 0
    while found < 60 * 20:
        entries = reader.read(positions, block_ms=2_000)
        assert entries
        assert len(entries) % 20 == 0
        positions |= {entry.stream: entry.position for entry in entries}
        found += len(entries)
    writer.join()


def test_positions_are_given_back_dated_by_us_or_by_the_server(client: redis.Redis, names: StreamNames) -> None:
    stream = names.inputs[0]
    before_ms = time.time() * 1000 - 1_000
    first, second, third = append_batch(client, [(stream, b"a", "5-0"), (stream, b"b", "5-1"), (stream, b"c", None)])
    assert (first, second) == ("5-0", "5-1")
    assert int(third.split("-")[0]) > before_ms
    assert [payload[b"e"] for _, payload in client.xrange(stream)] == [b"a", b"b", b"c"]
    assert append_batch(client, []) == []
    with pytest.raises(ResponseError, match="equal or smaller"):  # time does not run backwards within a stream
        append_batch(client, [(stream, b"d", "6-0")])


async def test_events_go_to_the_partition_of_their_request(
    client: redis.Redis, aclient: redis.asyncio.Redis, names: StreamNames
) -> None:
    events = clicks(20)
    assert await append_events(aclient, names, events, DAY_S, maxlen=PLENTY) == [True] * 20
    assert appended(client, names) == events
    assert await append_events(aclient, names, [], DAY_S, maxlen=PLENTY) == []


async def test_the_first_event_of_an_id_counts(
    client: redis.Redis, aclient: redis.asyncio.Redis, names: StreamNames
) -> None:
    first, other = clicks(2)
    again = msgspec.structs.replace(first, type="impression")
    assert await append_events(aclient, names, [first, other, again], DAY_S, maxlen=PLENTY) == [True, True, False]
    assert await append_events(aclient, names, [again, first], DAY_S, maxlen=PLENTY) == [False, False]
    assert appended(client, names) == [first, other]


async def test_many_who_send_the_same_append_it_once(client: redis.Redis, redis_url: str, names: StreamNames) -> None:
    events = clicks(50)

    async def send() -> list[bool]:
        async with connect_async(redis_url, name="test") as own:
            return await append_events(own, names, events, DAY_S, maxlen=PLENTY)

    answers = await asyncio.gather(*(send() for _ in range(8)))
    assert [sum(column) for column in zip(*answers, strict=True)] == [1] * 50
    assert appended(client, names) == events


async def test_an_id_is_forgotten_after_its_time(
    client: redis.Redis, aclient: redis.asyncio.Redis, names: StreamNames
) -> None:
    (event,) = clicks(1)
    assert await append_events(aclient, names, [event], 0.02, maxlen=PLENTY) == [True]
    key = names.event(event.request_id, event.id)
    deadline = time.monotonic() + 10
    while client.exists(key):
        assert time.monotonic() < deadline
    assert await append_events(aclient, names, [event], DAY_S, maxlen=PLENTY) == [True]
    assert 0.9 * DAY_S < client.ttl(key) <= DAY_S


async def test_a_retry_after_part_of_it_failed_appends_the_rest(
    client: redis.Redis, aclient: redis.asyncio.Redis, names: StreamNames
) -> None:
    """One partition's stream is no stream: its events fail and must not be remembered as appended."""
    events = clicks(20)
    spoilt = names.feedback(events[0].request_id)
    client.set(spoilt, "not a stream")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await append_events(aclient, names, events, DAY_S, maxlen=PLENTY)
    client.delete(spoilt)
    answers = await append_events(aclient, names, events, DAY_S, maxlen=PLENTY)
    assert answers == [names.feedback(event.request_id) == spoilt for event in events]
    assert appended(client, names) == events


async def test_a_full_server_takes_an_event_whole_or_not_at_all(tmp_path: Path, names: StreamNames) -> None:
    events = clicks(1_000)
    with EmbeddedServer(tmp_path) as server, connect(server.url, name="test") as client:
        async with connect_async(server.url, name="test") as aclient:
            await append_events(aclient, names, events[:10], DAY_S, maxlen=PLENTY)
            client.config_set("maxmemory", int(client.info("memory")["used_memory"]) + 50_000)
            accepted = events[:10] + await send_until_it_fails(aclient, names, events[10:])
            assert len(accepted) > 10
            assert appended(client, names) == accepted
            client.config_set("maxmemory", 0)
            rest = await append_events(aclient, names, events, DAY_S, maxlen=PLENTY)
            assert rest == [number >= len(accepted) for number in range(len(events))]
            assert appended(client, names) == events


async def test_a_server_killed_in_the_middle_loses_and_doubles_nothing(tmp_path: Path, names: StreamNames) -> None:
    events = clicks(3_000)
    server = EmbeddedServer(tmp_path).start()
    async with connect_async(server.url, name="test") as aclient:
        pid = (await aclient.info("server"))["process_id"]
        threading.Timer(0.05, os.kill, [pid, signal.SIGKILL]).start()
        accepted = await send_until_it_fails(aclient, names, events)
        server.stop()
        with EmbeddedServer(tmp_path), connect(server.url, name="test") as client:
            kept = appended(client, names)
            assert kept[: len(accepted)] == accepted
            assert len(kept) - len(accepted) <= 1  # the one on its way: appended, never answered
            added = await append_events(aclient, names, events, DAY_S, maxlen=PLENTY)
            assert added == [number >= len(kept) for number in range(len(events))]
            assert appended(client, names) == events


async def test_streams_keep_about_as_many_as_they_should(
    client: redis.Redis, aclient: redis.asyncio.Redis, names: StreamNames
) -> None:
    for batch in range(4):
        await append_served(aclient, sent(names, [a_served(f"r-{batch}-{one}") for one in range(500)]), 300)
    await append_events(aclient, names, clicks(2_000), DAY_S, maxlen=300)
    append_batch(client, [(names.dead, b"", None)] * 2_000, maxlen=300)
    for stream in (*names.inputs, names.dead):
        assert 300 <= client.xlen(stream) <= 500


async def test_served_records_arrive_in_order(
    client: redis.Redis, aclient: redis.asyncio.Redis, names: StreamNames
) -> None:
    records = [a_served(f"r-{one}") for one in range(30)]
    await append_served(aclient, sent(names, records), PLENTY)
    for stream in names.inputs[::2]:
        found = [decode_served(fields[b"e"]) for _, fields in client.xrange(stream)]
        assert found == [record for record in records if names.served(record.request_id) == stream]
    await append_served(aclient, [], PLENTY)
