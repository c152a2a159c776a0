"""The items in Redis: the hash and the stream of changes never contradict each other."""

from collections.abc import AsyncIterator

import pytest
import redis
from redis.exceptions import ResponseError

from service.connections import connect_async
from service.errors import EventError
from service.scoring.catalog import AT_A_TIME, REPLY_BYTES, Catalog, Item, features_of
from service.streams import START, StreamNames

ODD = ["a", "é💛", "with space", "a/b?c#d", "line\nbreak", "\x00", "x" * 256, "{tag}", '"']


@pytest.fixture
async def catalog(redis_url: str, names: StreamNames) -> AsyncIterator[Catalog]:
    async with connect_async(redis_url, name="test-items") as client:
        yield Catalog(client, names, max_items=2_000, maxlen=100_000)


async def all_of(catalog: Catalog) -> dict[bytes, bytes | None]:
    return {one: entry async for items in catalog.scan() for one, entry in items}


def changed(client: redis.Redis, names: StreamNames) -> list[str]:
    return [fields[b"e"].removeprefix(b"\x01").decode() for _, fields in client.xrange(names.item_changes)]


async def test_a_put_tells_what_it_did_and_announces_only_what_changed(
    client: redis.Redis, names: StreamNames, catalog: Catalog
) -> None:
    assert (await catalog.put([("a", b"{}"), ("b", b"{}"), ("a", b"{}")])).results == [
        "created",
        "created",
        "unchanged",
    ]
    puts = await catalog.put([("b", b'{"x":1}')])
    assert (puts.results, puts.position) == (["updated"], await catalog.end())
    assert await catalog.put([("b", b'{"x":1}')]) == (["unchanged"], None)
    assert await catalog.put([]) == ([], None)
    assert changed(client, names) == ["a", "b", "b"]
    assert await all_of(catalog) == {b"a": b"\x01{}", b"b": b'\x01{"x":1}'}
    assert await catalog.get("b") == b'\x01{"x":1}'


async def test_a_deletion_is_a_change(client: redis.Redis, names: StreamNames, catalog: Catalog) -> None:
    await catalog.put([("a", b"{}")])
    assert await catalog.delete("a") == await catalog.end()
    assert await catalog.delete("a") is None
    assert await catalog.get("a") is None
    assert changed(client, names) == ["a", "a"]


async def test_new_items_are_refused_when_there_is_no_room(redis_url: str, names: StreamNames) -> None:
    async with connect_async(redis_url, name="test-items") as client:
        small = Catalog(client, names, max_items=2, maxlen=100)
        puts = await small.put([(one, b"{}") for one in "abca"])
        assert puts.results == ["created", "created", "full", "unchanged"]
        assert (await small.put([("a", b"{ }")])).results == ["updated"]
        await small.delete("b")
        assert (await small.put([("c", b"{}")])).results == ["created"]


async def test_a_put_that_fails_leaves_nothing(client: redis.Redis, names: StreamNames, catalog: Catalog) -> None:
    client.set(names.item_changes, "no stream")
    with pytest.raises(ResponseError):
        await catalog.put([("a", b"{}")])
    assert await all_of(catalog) == {}


async def test_ids_may_be_any_text(catalog: Catalog) -> None:
    start = await catalog.end()
    await catalog.put([(one, b"{}") for one in ODD])
    assert {one.decode() for one in await all_of(catalog)} == set(ODD)
    changes = await catalog.changes(start, 10)
    assert [(one.decode(), entry) for one, entry in changes.items] == [(one, b"\x01{}") for one in ODD]
    for one in ODD:
        assert await catalog.get(one) == b"\x01{}"
        assert await catalog.delete(one)


async def test_a_scan_gives_everything_in_parts(catalog: Catalog) -> None:
    assert [items async for items in catalog.scan()] == [[]]
    entries = {f"i-{number}".encode(): str(number) * 5 for number in range(1_500)}
    await catalog.put([(one.decode(), text.encode()) for one, text in entries.items()])
    parts = [items async for items in catalog.scan()]
    assert len(parts) > 1
    assert dict(sum(parts, [])) == {one: b"\x01" + text.encode() for one, text in entries.items()}


async def test_changes_are_as_the_items_are_now(catalog: Catalog) -> None:
    assert await catalog.end() == START
    for text in (b"1", b"2"):
        await catalog.put([("a", text), ("b", text)])
    await catalog.delete("b")
    changes = await catalog.changes(START, 10)
    assert changes == ([(b"a", b"\x012"), (b"b", None)], await catalog.end(), 0.0, None)
    assert await catalog.changes(changes.position, 10) == ([], changes.position, 0.0, None)


async def test_many_changes_come_in_parts(catalog: Catalog) -> None:
    await catalog.put([(str(number), b"{}") for number in range(AT_A_TIME + 1)])
    first = await catalog.changes(START, 10)
    second = await catalog.changes(first.position, 10)
    items: list[Item] = first.items + second.items
    assert (len(first.items), items) == (AT_A_TIME, [(str(one).encode(), b"\x01{}") for one in range(AT_A_TIME + 1)])


async def test_large_items_come_in_small_parts(client: redis.Redis, names: StreamNames, catalog: Catalog) -> None:
    """An older release took them: a reply of many would hold the server up for seconds."""
    large = {f"i-{number}".encode(): b"\x01" + b"x" * (REPLY_BYTES // 10) for number in range(200)}
    await catalog.put([(one.decode(), entry[1:]) for one, entry in large.items()])
    parts = [items async for items in catalog.scan()]
    assert dict(sum(parts, [])) == large
    assert max(sum(len(entry or b"") for _, entry in items) for items in parts) < 4 * REPLY_BYTES
    await catalog.put([("huge", b"x" * 3 * REPLY_BYTES), ("b", b"{}")])
    position, counts = START, []
    while position != await catalog.end():
        changes = await catalog.changes(position, 10)
        position = changes.position
        counts.append(len(changes.items))
    assert counts == [10] * 20 + [1, 1]


async def test_what_was_trimmed_unread_is_lost(client: redis.Redis, names: StreamNames, catalog: Catalog) -> None:
    await catalog.put([("a", b"{}")])
    position = await catalog.end()
    await catalog.put([("b", b"{}"), ("c", b"{}")])
    assert (await catalog.changes(position, 10)).lost is None
    client.xtrim(names.item_changes, maxlen=1, approximate=False)
    assert (await catalog.changes(position, 10)).lost == "trimmed"
    assert (await catalog.changes(await catalog.end(), 10)).lost is None
    client.delete(names.item_changes)
    assert (await catalog.changes(position, 10)).lost == "trimmed"


async def test_an_older_copy_is_known_by_what_it_lacks(
    client: redis.Redis, names: StreamNames, catalog: Catalog
) -> None:
    await catalog.put([("a", b"{}")])
    copy = client.dump(names.item_changes)
    await catalog.put([("b", b"{}")])
    position = await catalog.end()
    client.restore(names.item_changes, 0, copy, replace=True)
    assert (await catalog.changes(position, 10)).lost == "restored"
    await catalog.put([("c", b"{}")])  # by somebody who was sooner than we
    assert (await catalog.changes(position, 10)).lost == "restored"
    assert (await catalog.changes(await catalog.end(), 10)).lost is None


async def test_that_the_newest_change_is_gone_loses_nothing(
    client: redis.Redis, names: StreamNames, catalog: Catalog
) -> None:
    await catalog.put([("a", b"{}"), ("b", b"{}")])
    position = await catalog.end()
    client.xdel(names.item_changes, position)
    assert (await catalog.changes(position, 10)).lost is None
    client.xtrim(names.item_changes, maxlen=0, approximate=False)
    assert (await catalog.changes(position, 10)).lost is None


async def test_what_others_write_is_passed_over(client: redis.Redis, names: StreamNames, catalog: Catalog) -> None:
    client.xadd(names.item_changes, {"e": b"\x02new"})
    client.xadd(names.item_changes, {"other": b"x"})
    await catalog.put([("a", b"{}")])
    assert [one for one, _ in (await catalog.changes(START, 10)).items] == [b"a"]
    assert features_of(b"\x01{}") == b"{}"
    for entry in (b"", b"\x02{}", b"{}"):
        with pytest.raises(EventError, match="schema_version"):
            features_of(entry)
