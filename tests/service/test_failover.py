"""A server that has become a replica is left: the next command goes where the name leads by then."""

import asyncio
from typing import Any

import pytest
from redis.exceptions import RedisError

from service.appends import append_batch, append_events, append_served
from service.connections import connect, connect_async, refusal
from service.events import Event
from service.streams import StreamNames

TOGETHER = 5


def test_whoever_is_refused_goes_where_the_name_leads(failover: Any, names: StreamNames) -> None:
    with connect(failover.url, name="test") as client:
        append_batch(client, [(names.models, b"before", None)])
        failover.happens()
        with pytest.raises(RedisError) as raised:
            append_batch(client, [(names.models, b"refused", None)])
        assert refusal(raised.value) == "read_only"
        append_batch(client, [(names.models, b"after", None)])
    assert [fields for _, fields in failover.second.xrange(names.models)] == [{b"e": b"after"}]


async def test_so_do_all_others_of_the_same_client(failover: Any, names: StreamNames) -> None:
    """A refusal to one of them is enough, whether it came from a command or from a script."""
    event = Event(id="e1", type="click", request_id="r1", item_id="a")
    async with connect_async(failover.url, name="test") as client:
        await asyncio.gather(*(client.ping() for _ in range(TOGETHER)))
        failover.happens()
        with pytest.raises(RedisError) as raised:
            await append_events(client, names, [event], 60.0, maxlen=100)
        assert refusal(raised.value) == "read_only"
        assert await append_events(client, names, [event], 60.0, maxlen=100) == [True]
        served = [append_served(client, [(names.models, b"%d" % one)], maxlen=100) for one in range(TOGETHER)]
        await asyncio.gather(*served)
    assert failover.second.xlen(names.models) == TOGETHER


async def test_what_is_under_way_comes_to_its_end_first(failover: Any, names: StreamNames) -> None:
    async with connect_async(failover.url, name="test") as client:
        await asyncio.gather(client.ping(), client.ping())
        failover.happens()
        waiting = asyncio.create_task(client.xread({names.models: "$"}, block=300))
        await asyncio.sleep(0.05)
        with pytest.raises(RedisError):
            await client.set(names.dead, b"")
        assert not waiting.done()
        assert not await waiting
        failover.second.set(names.dead, b"here")
        assert await asyncio.gather(*(client.get(names.dead) for _ in range(2))) == [b"here"] * 2


def test_a_replica_that_does_not_even_read_is_left_too(failover: Any, names: StreamNames) -> None:
    failover.first.config_set("replica-serve-stale-data", "no")
    with connect(failover.url, name="test") as client:
        client.ping()
        failover.happens()
        with pytest.raises(RedisError) as raised:
            client.xread({names.models: "0"})
        assert refusal(raised.value) == "read_only"
        assert client.xread({names.models: "0"}) == []
