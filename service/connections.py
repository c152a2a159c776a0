"""Connections to Redis or Valkey, and what a server must be to hold the log."""

from collections.abc import Mapping
from typing import Any, Literal

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import BusyLoadingError, RedisError, ResponseError
from redis.retry import Retry

from service import clusters
from service.errors import StreamError, Unavailable

OLDEST_SERVER = (6, 2)
SOCKET_TIMEOUT_S = 5.0
LONGEST_BLOCK_MS = 2_000  # a blocking read must end well before its socket times out

# Whatever the URL says: replies are bytes in the shapes of protocol 2, and blocking reads count on the timeout.
_OPTIONS = {
    "protocol": 2,
    "decode_responses": False,
    "socket_timeout": SOCKET_TIMEOUT_S,
    "socket_connect_timeout": SOCKET_TIMEOUT_S,
}


def connect(url: str, *, name: str) -> redis.Redis:
    """A client that never retries by itself: an append that may have happened is the caller's decision.

    Args:
        url: redis://, rediss:// or unix://, or redis+cluster:// of any node of a cluster. May hold a password: never
            logged.
        name: shown by CLIENT LIST.

    Raises:
        StreamError: cluster_unreachable. A server that does not answer is noticed by the first command.
    """
    if clusters.is_cluster(url):
        client: redis.Redis = clusters.connect(url, client_name=name, retry=Retry(NoBackoff(), 0), **_OPTIONS)
        return client
    options: dict[str, Any] = redis.connection.parse_url(url) | _OPTIONS  # type: ignore[no-untyped-call]
    options |= {"client_name": name, "retry": Retry(NoBackoff(), 0)}
    return redis.Redis.from_pool(redis.ConnectionPool(**options))


def connect_async(url: str, *, name: str) -> redis.asyncio.Redis:
    """The same for asyncio; raises nothing."""
    if clusters.is_cluster(url):
        client: redis.asyncio.Redis = clusters.connect_async(
            url, client_name=name, retry=AsyncRetry(NoBackoff(), 0), **_OPTIONS
        )
        return client
    options: dict[str, Any] = dict(redis.asyncio.connection.parse_url(url)) | _OPTIONS
    options |= {"client_name": name, "retry": AsyncRetry(NoBackoff(), 0)}
    return redis.asyncio.Redis.from_pool(redis.asyncio.ConnectionPool(**options))


Refusal = Literal["out_of_memory", "read_only", "loading", "refused", "unreachable"]


def refusal(error: RedisError | TimeoutError) -> Refusal:
    """Why Redis did not do what it was asked, in a word for a label."""
    text = str(error)  # of an error within a script all servers tell the text, and some the type
    if "used memory > 'maxmemory'" in text:
        return "out_of_memory"
    if "read only replica" in text:
        return "read_only"
    if isinstance(error, BusyLoadingError):
        return "loading"
    return "refused" if isinstance(error, ResponseError) else "unreachable"


def unavailable(error: RedisError | TimeoutError) -> Unavailable:
    """What a caller is told whose words Redis did not take."""
    if refusal(error) == "out_of_memory":
        return Unavailable("log_full", "Redis has no room for more: send the same again when there is some")
    return Unavailable("log_unavailable", "Redis cannot be reached: send the same again")


def check_server(client: redis.Redis) -> str | None:
    """None, or a sentence on what this server does not let us check. Raises StreamError like `check_info`."""
    cluster = isinstance(client, RedisCluster)
    try:
        return next(filter(None, (check_info(one, cluster=cluster) for one in clusters.infos(client))), None)
    except ResponseError:
        return "INFO is forbidden here: see to it that the server is 6.2 or newer and its maxmemory-policy noeviction"


def check_info(info: Mapping[str, Any], *, cluster: bool = False) -> str | None:
    """The same for a reply of INFO.

    Args:
        cluster: we know that it is one.

    Raises:
        StreamError: server_too_old, server_is_cluster, server_evicts.
    """
    version = str(info["redis_version"])  # of a Valkey the Redis that it is compatible with
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_SERVER:
        raise StreamError("server_too_old", f"the log needs Redis 6.2 or any Valkey, this is {version}")
    if info.get("cluster_enabled") and not cluster:
        raise StreamError("server_is_cluster", "this is a node of a cluster: let redis_url begin with redis+cluster://")
    policy = info.get("maxmemory_policy")
    if policy is None:
        return "this server does not tell its maxmemory-policy: see to it that it is noeviction"
    if policy != "noeviction":
        raise StreamError("server_evicts", f"maxmemory-policy {policy} would drop parts of the log: set noeviction")
    if not info.get("aof_enabled", 1):
        return "this server has no append-only file: the log dies with it. Set appendonly yes and appendfsync always"
    return None
