"""A real cluster of three nodes: the log spreads over them, and everything that reads or writes it works as ever."""

import asyncio
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import redis
from redis.exceptions import RedisError

from service.appends import append_batch, append_events, append_served, next_announcement
from service.clusters import together
from service.connections import check_server, connect, connect_async
from service.errors import StreamError
from service.events import Event
from service.gaps import GapFinder
from service.scoring.catalog import Catalog
from service.streams import LogReader, StreamNames, order
from service.valkey import _binary, _free_port

SLOTS = 16_384
PARTITIONS = 6
TTL_S = 60.0


class Cluster:
    """Three nodes on loopback."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.ports, buses = ([_free_port() for _ in range(3)] for _ in range(2))
        pairs = list(zip(self.ports, buses, strict=True))
        self.processes = [stack.enter_context(self._node(folder / str(port), port, bus)) for port, bus in pairs]
        nodes = [stack.enter_context(redis.Redis(port=port)) for port in self.ports]
        for number, node in enumerate(nodes):
            until(lambda node=node: answers(node), "an answer")
            first, end = (SLOTS * one // len(nodes) for one in (number, number + 1))
            node.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
            node.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for port, bus in pairs[1:]:
            nodes[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port, bus)
        until(lambda: all(node.cluster("INFO")["cluster_state"] == "ok" for node in nodes), "a cluster")

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.ports[1]}"

    @staticmethod
    def _node(folder: Path, port: int, bus: int) -> "subprocess.Popen[bytes]":
        folder.mkdir()
        options = {"port": port, "bind": "127.0.0.1", "dir": folder, "cluster-enabled": "yes", "save": ""}
        options |= {"cluster-port": bus}  # by itself the other plus 10,000, which there may not be
        options |= {"appendonly": "yes", "maxmemory-policy": "noeviction", "logfile": "server.log"}
        return Node([_binary(), *(text for name, one in options.items() for text in (f"--{name}", str(one)))])


class Node(subprocess.Popen[bytes]):
    """Ends with its context."""

    def __exit__(self, *exception: object) -> None:
        self.terminate()
        self.wait()


def answers(node: redis.Redis) -> bool:
    try:
        return bool(node.ping())
    except RedisError:
        return False


def until(true, what: str) -> None:
    deadline = time.monotonic() + 30.0
    while not true():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(tmp_path_factory.mktemp("cluster"), stack)


@pytest.fixture
def spread(names: StreamNames) -> StreamNames:
    """Streams on all nodes, of this test alone."""
    return StreamNames(names.inputs[0].partition(":")[0], PARTITIONS)


def test_partitions_are_on_all_nodes_and_each_on_one(cluster: Cluster, spread: StreamNames) -> None:
    with connect(cluster.url, name="test") as client:
        assert check_server(client) is None
        groups = together(client, spread.inputs)
        assert [len(group) for group in groups] == [2] * PARTITIONS
        nodes = {client.get_node_from_key(group[0]).port for group in groups}
        assert nodes == set(cluster.ports)
        for group in groups:
            keys = [*group, spread.event("any", "e"), spread.served("any")]
            assert together(client, keys[:2]) == [group]


def test_a_node_that_is_named_as_a_server_is_refused_with_advice(cluster: Cluster) -> None:
    with connect(cluster.url.replace("+cluster", ""), name="test") as client, pytest.raises(StreamError) as raised:
        check_server(client)
    assert raised.value.code == "server_is_cluster"
    assert "redis+cluster://" in raised.value.detail


def test_the_merged_order_holds_while_it_is_written(cluster: Cluster, spread: StreamNames) -> None:
    """Each node dates by itself; a reader waits for the one that is behind."""

    def write(stream: str) -> None:
        with connect(cluster.url, name="test") as own:
            for number in range(40):
                append_batch(own, [(stream, b"%d" % number, None)])

    writers = [threading.Thread(target=write, args=[stream]) for stream in spread.inputs]
    with connect(cluster.url, name="test") as client:
        reader, finder = LogReader(client, spread, count=5), GapFinder(client, spread.inputs, window_ms=1_000)
        for writer in writers:
            writer.start()
        positions: dict[str, str] = {}
        found = []
        while len(found) < 40 * len(writers):
            chunk = reader.read(positions, block_ms=2_000)
            assert chunk
            assert finder.find(positions, chunk) == []
            positions |= {entry.stream: entry.position for entry in chunk}
            found += chunk
        for writer in writers:
            writer.join()
        assert found == sorted(found, key=lambda entry: (order(entry.position), entry.stream))
        assert LogReader(client, spread, count=10_000).read({}, block_ms=0) == found
        assert reader.lag({}) == dict.fromkeys(spread.inputs, 40)
        assert set(reader.lag(positions).values()) == {0}
        for stream in spread.inputs:
            assert [entry.payload for entry in found if entry.stream == stream] == [b"%d" % one for one in range(40)]


def test_a_batch_over_all_partitions_keeps_its_places(cluster: Cluster, spread: StreamNames) -> None:
    with connect(cluster.url, name="test") as client:
        given = [(stream, b"x", f"{ms}-1") for ms in range(1, 4) for stream in spread.inputs]
        assert append_batch(client, given) == [position for *_, position in given]
        assert [one.time_ms for one in LogReader(client, spread).read({}, block_ms=0)] == [1] * 12 + [2] * 12 + [3] * 12


async def test_a_scorer_writes_and_hears_and_keeps_items(cluster: Cluster, spread: StreamNames) -> None:
    events = [Event(id=f"e{one}", type="click", request_id=f"r{one}", item_id="i") for one in range(30)]
    async with connect_async(cluster.url, name="test") as client:
        assert await append_events(client, spread, events[:20], TTL_S, maxlen=1_000) == [True] * 20
        assert await append_events(client, spread, events, TTL_S, maxlen=1_000) == [False] * 20 + [True] * 10
        await append_served(client, [(spread.served(one.request_id), b"served") for one in events], maxlen=1_000)
        assert await next_announcement(client, spread, "$", 10) is None
        catalog = Catalog(client, spread, max_items=10, maxlen=1_000)
        put = await catalog.put([("a", b"{}"), ("b", b"{}")])
        assert len(put.results) == 2
        assert sorted([one async for part in catalog.scan() for one, _ in part]) == [b"a", b"b"]
        assert (await catalog.changes("0-0", 10)).position == put.position
    with connect(cluster.url, name="test") as client:
        found = LogReader(client, spread).read({}, block_ms=1_000)
        assert len(found) == 60
        append_batch(client, [(spread.models, b"announced", None)])
    async with connect_async(cluster.url, name="test") as client:
        heard = await next_announcement(client, spread, "0-0", 10)
        assert heard is not None
        assert heard.payload == b"announced"


async def test_so_many_commands_may_be_under_way_on_a_node(cluster: Cluster, spread: StreamNames) -> None:
    async with connect_async(cluster.url, name="test", most=120) as client:
        assert await asyncio.gather(*(client.exists(spread.inputs[0]) for _ in range(120))) == [0] * 120


async def test_a_cluster_that_is_gone_is_an_error_like_a_server_that_is_gone(
    tmp_path: Path, names: StreamNames
) -> None:
    with ExitStack() as stack:
        gone = Cluster(tmp_path, stack)
        client = stack.enter_context(connect(gone.url, name="test"))
        reader = LogReader(client, names)
        other = await stack_async(gone.url)
        for process in gone.processes:
            process.kill()
            process.wait()
        for call in (lambda: reader.read({}, block_ms=0), lambda: reader.lag({})):
            for _ in range(3):  # also once it looks for the nodes anew
                with pytest.raises(RedisError):
                    call()
        for _ in range(3):
            with pytest.raises(RedisError):
                await append_served(other, [(names.served("r"), b"")], maxlen=10)
        await other.aclose()
        with pytest.raises(StreamError, match="cluster_unreachable"):
            connect(gone.url, name="test")


async def stack_async(url: str) -> redis.asyncio.Redis:
    client = connect_async(url, name="test")
    await client.ping()
    return client
