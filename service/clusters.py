"""Clusters: Redis Cluster behind the same client. A partition's keys share a hash tag, and so a node.

A cluster that does not answer raises RedisError like a server that does not: who waits for one waits for the other.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import redis
import redis.asyncio
import redis.asyncio.cluster
import redis.cluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException

from service.errors import StreamError

# {server time, reply of XREAD}: one command for each slot, since it is known by its keys where it belongs.
_FETCH = """
local arguments = {'COUNT', ARGV[1], 'STREAMS'}
for i = 1, #KEYS do arguments[#arguments + 1] = KEYS[i] end
for i = 2, #ARGV do arguments[#arguments + 1] = ARGV[i] end
return {redis.call('TIME'), redis.call('XREAD', unpack(arguments))}
"""

_MARK = "+cluster"  # redis+cluster://, rediss+cluster://


class _AsyncCluster(redis.asyncio.cluster.RedisCluster):
    async def initialize(self, *given: Any, **named: Any) -> redis.asyncio.cluster.RedisCluster:
        try:
            return await super().initialize(*given, **named)
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from None


def is_cluster(url: str) -> bool:
    """Whether a URL names a cluster, by any of its nodes."""
    return url.partition("://")[0].endswith(_MARK)


def plain(url: str) -> str:
    """The URL of that node itself."""
    return url.replace(_MARK, "", 1) if is_cluster(url) else url


def connect(url: str, **options: Any) -> Any:
    """A client with the methods of `redis.Redis`. Raises StreamError: cluster_unreachable, by none of its nodes."""
    try:
        client = redis.cluster.RedisCluster.from_url(plain(url), **options)
    except RedisClusterException as error:
        raise StreamError("cluster_unreachable", str(error)) from None
    client.nodes_manager.initialize = _raising(client.nodes_manager.initialize)  # type: ignore[method-assign]
    return client


def connect_async(url: str, **options: Any) -> Any:
    """The same for asyncio. Connects with its first command."""
    return _AsyncCluster.from_url(plain(url), **options)


def together(client: redis.Redis, keys: Iterable[str]) -> list[list[str]]:
    """The keys, in groups that one command or transaction may name: all, or of a cluster those of one slot."""
    if not isinstance(client, redis.cluster.RedisCluster):
        return [list(keys)]
    groups: dict[int, list[str]] = {}
    for key in keys:
        groups.setdefault(client.keyslot(key), []).append(key)
    return list(groups.values())


def fetch(
    client: redis.Redis, groups: Iterable[list[str]], after: Mapping[str, str], *, count: int
) -> list[tuple[list[str], int, Any]]:
    """For each group of `together`: its streams, its server's time in ms, and what XREAD found thereafter.

    Args:
        after: stream -> position.
        count: most entries of a stream.
    """
    pipe: Any
    if not isinstance(client, redis.cluster.RedisCluster):
        with client.pipeline(transaction=False) as pipe:
            pipe.time()
            pipe.xread(dict(after), count=count)
            (seconds, micros), reply = pipe.execute()
        return [(list(after), seconds * 1000 + micros // 1000, reply)]
    with client.pipeline(transaction=False) as pipe:
        for streams in groups:
            pipe.execute_command("EVAL", _FETCH, len(streams), *streams, count, *(after[stream] for stream in streams))
        replies = pipe.execute()
    return [
        (streams, int(seconds) * 1000 + int(micros) // 1000, [(key, _parsed(rows)) for key, rows in reply or ()])
        for streams, ((seconds, micros), reply) in zip(groups, replies, strict=True)
    ]


def _parsed(rows: Iterable[tuple[bytes, list[bytes]]]) -> list[tuple[bytes, dict[bytes, bytes]]]:
    """Entries as redis-py gives them, of a reply of which it does not know that it is one of XREAD."""
    return [(position, dict(zip(fields[::2], fields[1::2], strict=True))) for position, fields in rows]


def infos(client: redis.Redis) -> list[dict[str, Any]]:
    """The reply of INFO of every server that is written to."""
    if not isinstance(client, redis.cluster.RedisCluster):
        return [client.info()]
    found: dict[str, dict[str, Any]] = client.info(target_nodes=redis.cluster.RedisCluster.PRIMARIES)
    # Of a single node the reply is not by node.
    return [found] if "redis_version" in found else list(found.values())


def _raising(initialize: Callable[..., None]) -> Callable[..., None]:
    """Finds the nodes, or raises what everybody who talks to Redis expects."""

    def find(*given: Any, **named: Any) -> None:
        try:
            initialize(*given, **named)
        except RedisClusterException as error:
            raise RedisConnectionError(str(error)) from None

    return find
