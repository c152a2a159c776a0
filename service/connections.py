"""Connections to Redis or Valkey, and what a server must be to hold the log."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal, Self, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import BusyLoadingError, RedisError, ResponseError
from redis.retry import Retry

from service import clusters
from service.errors import StreamError, Unavailable

T = TypeVar("T")

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
    client: redis.Redis
    if clusters.is_cluster(url):
        client = clusters.connect(url, client_name=name, retry=Retry(NoBackoff(), 0), **_OPTIONS)
        return client
    options: dict[str, Any] = redis.connection.parse_url(url) | _OPTIONS  # type: ignore[no-untyped-call]
    pool = redis.ConnectionPool(**options | {"client_name": name})
    client = redis.Redis.from_pool(pool)
    client.set_retry(_Leaving(pool))
    return client


def connect_async(url: str, *, name: str, most: int = 100) -> redis.asyncio.Redis:
    """The same for asyncio; raises nothing.

    Args:
        most: connections at a time, of a cluster to each node. A command beyond them fails at once, so there must be
            one for each that may be under way.
    """
    client: redis.asyncio.Redis
    if clusters.is_cluster(url):
        client = clusters.connect_async(
            url, client_name=name, max_connections=most, retry=AsyncRetry(NoBackoff(), 0), **_OPTIONS
        )
        return client
    options: dict[str, Any] = dict(redis.asyncio.connection.parse_url(url)) | _OPTIONS
    pool = redis.asyncio.ConnectionPool(**options | {"client_name": name, "max_connections": most})
    client = redis.asyncio.Redis.from_pool(pool)
    client.set_retry(_LeavingAsync(pool))
    return client


class _Leaving(Retry):
    """Tries once, and leaves a server that has become a replica: its name may lead to another one by now.

    A replica refuses a write and keeps the connection, so that nobody would ask for the name again. Of a cluster it
    tells who takes the write instead.
    """

    def __init__(self, pool: redis.ConnectionPool) -> None:
        super().__init__(NoBackoff(), 0)
        self._pool = pool

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self  # each connection copies its own

    def call_with_retry(self, do: Callable[[], T], *given: Any, **named: Any) -> T:
        try:
            return super().call_with_retry(do, *given, **named)
        except ResponseError as error:
            if refusal(error) == "read_only":
                self._pool.disconnect()
            raise


class _LeavingAsync(AsyncRetry):
    """The same. What others have under way on that server comes to its end first."""

    def __init__(self, pool: redis.asyncio.ConnectionPool) -> None:
        super().__init__(NoBackoff(), 0)
        self._pool = pool

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self

    async def call_with_retry(self, do: Callable[[], Awaitable[T]], *given: Any, **named: Any) -> T:
        try:
            return await super().call_with_retry(do, *given, **named)
        except ResponseError as error:
            if refusal(error) == "read_only":
                await self._pool.update_active_connections_for_reconnect()  # type: ignore[no-untyped-call]
                await self._pool.disconnect(inuse_connections=False)
            raise


# What it says to a write, and to a read where it must not serve old data.
_OF_A_REPLICA = ("read only replica", "Link with MASTER is down")

Refusal = Literal["out_of_memory", "read_only", "loading", "refused", "unreachable"]


def refusal(error: RedisError | TimeoutError) -> Refusal:
    """Why Redis did not do what it was asked, in a word for a label."""
    text = str(error)  # of an error within a script all servers tell the text, and some the type
    if "used memory > 'maxmemory'" in text:
        return "out_of_memory"
    if any(one in text for one in _OF_A_REPLICA):
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
