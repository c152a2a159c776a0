"""Connections behave the same whatever the URL says, and a server that would lose entries is refused."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MaxConnectionsError, RedisError

from service.appends import append_batch
from service.connections import (
    LONGEST_BLOCK_MS,
    SOCKET_TIMEOUT_S,
    check_info,
    check_server,
    connect,
    connect_async,
    refusal,
)
from service.errors import StreamError
from service.streams import StreamNames, entries_of
from service.valkey import EmbeddedServer


@pytest.mark.parametrize(
    "query", ["", "?protocol=3", "?socket_timeout=0.001", "?decode_responses=True", "?client_name=mine"]
)
def test_replies_have_one_shape_whatever_the_url_says(redis_url: str, names: StreamNames, query: str) -> None:
    with connect(redis_url + query, name="test") as client:
        assert entries_of(client.xread({names.models: "0-0"})) == {}
        position = client.xadd(names.models, {"e": b"payload"}).decode()
        found = entries_of(client.xread({names.models: "0-0"}))
    assert found == {names.models: [(names.models, position, b"payload")]}


async def test_asyncio_replies_have_it_too(redis_url: str, names: StreamNames) -> None:
    async with connect_async(redis_url + "?protocol=3", name="test") as client:
        position = (await client.xadd(names.models, {"e": b"payload"})).decode()
        found = entries_of(await client.xread({names.models: "0-0"}))
    assert found == {names.models: [(names.models, position, b"payload")]}


async def test_connections_are_named(redis_url: str) -> None:
    with connect(redis_url, name="agerank-one") as client:
        async with connect_async(redis_url, name="agerank-two") as other:
            await other.ping()
            listed = {one["name"] for one in client.client_list()}
    assert {"agerank-one", "agerank-two"} <= listed


async def test_a_server_that_is_gone_is_an_error_at_once(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server:
        url = server.url
    with connect(url, name="test") as client, pytest.raises(RedisConnectionError):
        client.ping()
    async with connect_async(url, name="test") as client:
        with pytest.raises(RedisConnectionError):
            await client.ping()


def test_the_longest_block_ends_before_the_socket_gives_up() -> None:
    assert LONGEST_BLOCK_MS / 1000 < SOCKET_TIMEOUT_S / 2


def test_a_server_that_keeps_everything_passes(client: redis.Redis) -> None:
    assert check_server(client) is None


def test_a_server_that_evicts_is_refused(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server, connect(server.url, name="test") as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        with pytest.raises(StreamError, match="allkeys-lru") as raised:
            check_server(client)
    assert raised.value.code == "server_evicts"


def test_a_server_that_keeps_no_file_is_taken_with_a_word(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server, connect(server.url, name="test") as client:
        client.config_set("appendonly", "no")
        word = check_server(client)
    assert word is not None
    assert "appendonly" in word


def test_what_a_server_refuses_is_told_apart(tmp_path: Path) -> None:
    def refused(call: Callable[[], object]) -> str:
        with pytest.raises(RedisError) as raised:
            call()
        return refusal(raised.value)

    with EmbeddedServer(tmp_path) as server, connect(server.url, name="test") as client:
        writes = [
            lambda: client.xadd("log", {"e": b""}),
            lambda: client.eval("return redis.call('XADD', KEYS[1], '*', 'e', '')", 1, "log"),
            lambda: append_batch(client, [("log", b"", None)]),
        ]
        client.config_set("maxmemory", 1)
        assert {refused(write) for write in writes} == {"out_of_memory"}
        client.config_set("maxmemory", 0)
        client.replicaof("127.0.0.1", 1)
        assert {refused(write) for write in writes} == {"read_only"}
        client.replicaof("NO", "ONE")
        assert refused(lambda: client.execute_command("XADD")) == "refused"
        server.stop()
        assert refused(client.ping) == "unreachable"


def test_a_server_that_forbids_the_look_is_taken_with_a_word(tmp_path: Path) -> None:
    with EmbeddedServer(tmp_path) as server, connect(server.url, name="test") as client:
        client.acl_setuser("limited", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-info"])
        with connect(server.url.replace("//", "//limited:any@"), name="test") as limited:
            word = check_server(limited)
    assert word is not None
    assert "noeviction" in word


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"redis_version": "6.0.16"}, "server_too_old"),
        ({"redis_version": "5.0.7"}, "server_too_old"),
        ({"cluster_enabled": 1}, "server_is_cluster"),
        ({"maxmemory_policy": "volatile-ttl"}, "server_evicts"),
    ],
)
def test_servers_that_we_do_not_have_here(client: redis.Redis, change: dict[str, object], code: str) -> None:
    with pytest.raises(StreamError) as raised:
        check_info(client.info() | change)
    assert raised.value.code == code


@pytest.mark.parametrize("version", ["6.2.0", "7.0.15", "8.10.1", "10.0.0"])
def test_versions_compare_as_numbers(client: redis.Redis, version: str) -> None:
    assert check_info(client.info() | {"redis_version": version}) is None


def test_a_server_that_hides_its_policy_is_taken_with_a_word(client: redis.Redis) -> None:
    info = {key: value for key, value in client.info().items() if key != "maxmemory_policy"}
    assert "maxmemory-policy" in (check_info(info) or "")


async def test_as_many_commands_are_under_way_as_it_is_told(redis_url: str, names: StreamNames) -> None:
    async def ask(most: int, commands: int) -> list[object]:
        async with connect_async(redis_url, name="test", most=most) as client:
            return await asyncio.gather(*(client.exists(names.models) for _ in range(commands)), return_exceptions=True)

    assert await ask(120, 120) == [0] * 120
    refused = [one for one in await ask(2, 3) if one != 0]
    assert [type(one) for one in refused] == [MaxConnectionsError]
