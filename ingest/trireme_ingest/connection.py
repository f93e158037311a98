"""Connections to Redis: to a single one or to a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from redis import Redis, RedisCluster
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError
from redis.retry import Retry

from trireme_ingest.errors import StoreError
from trireme_runtime.features.address import StoreAddress

__all__ = ["FAILURES", "connected"]

#: What says that Redis cannot be used as it is, perhaps for a moment.
FAILURES = (RedisError, RedisClusterException)
#: Of connecting and of an answer: longer than a consumer waits for an entry.
TIMEOUT_S = 5.0


@contextmanager
def connected(address: StoreAddress) -> Iterator[Redis]:
    """A connection that has answered once. A command is not repeated by itself: who gave it knows whether that does harm.

    Raises:
        StoreError: it does not answer, now or within the ``with`` block, or refuses a command.
    """
    try:
        connection = _connection(address)
    except (*FAILURES, TypeError, ValueError) as error:
        raise _refused(address, error) from None
    try:
        with connection:
            connection.ping()
            yield connection
    except FAILURES as error:
        raise _refused(address, error) from None


def _connection(address: StoreAddress) -> Redis:
    options: dict[str, Any] = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    if address.is_cluster:
        return cast(Redis, RedisCluster.from_url(address.url, **options))
    redis = Redis.from_url(address.url, retry=Retry(NoBackoff(), 0), **options)
    redis.connection_pool.make_connection()  # connects nobody, and looks at the options of the address
    return redis


def _refused(address: StoreAddress, error: Exception) -> StoreError:
    return StoreError(f"Redis ({address}) cannot be used: {error}")
