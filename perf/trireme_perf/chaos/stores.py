"""The feature store of a scenario: a Redis or a Redis Cluster, with what the users who ask did since the bundle was made."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import redis

from trireme_perf.features.redis_nodes import redis_cluster
from trireme_perf.features.redis_process import DURABLE, RedisProcess, wait_until
from trireme_runtime.features.record import RecordLayout, user_key

__all__ = ["PROGRAMS", "Store", "feature_store"]

NAMESPACE = "chaos"
#: What each kind of store needs on PATH.
PROGRAMS = {"redis": ("redis-server",), "cluster": ("redis-server", "redis-cli")}


class Store:
    """A store that answers. nodes: of a cluster, the masters first, the first one in the address."""

    def __init__(self, nodes: Sequence[RedisProcess], timeout_ms: float, is_cluster: bool) -> None:
        self.nodes = nodes
        self._is_cluster = is_cluster
        scheme, host = "redis-cluster" if is_cluster else "redis", f"127.0.0.1:{nodes[0].port}"
        self.address = f"{scheme}://{host}?namespace={NAMESPACE}&timeout_ms={timeout_ms:g}"

    def write(self, taken: Mapping[int, Sequence[int]], layout: RecordLayout) -> None:
        """Lets each user have taken some items just now, the newest last. Returns when all nodes know it."""
        now_ms = round(time.time() * 1000)
        connection: Any = (
            redis.RedisCluster("127.0.0.1", self.nodes[0].port) if self._is_cluster else self.nodes[0].connect()
        )
        with connection:
            for user, items in taken.items():
                connection.set(user_key(NAMESPACE, user), _record(layout, items, now_ms))
        copies = 2 if self._is_cluster else 1
        wait_until(lambda: self._keys() == copies * len(taken), "the records of users did not reach all nodes of Redis")

    def _keys(self) -> int:
        total = 0
        for node in self.nodes:
            with node.connect() as connection:
                total += int(connection.execute_command("DBSIZE"))
        return total


@contextmanager
def feature_store(kind: str, timeout_ms: float, folder: Path) -> Iterator[Store]:
    """Starts a store without any records.

    Args:
        kind: one of ``PROGRAMS``.
        timeout_ms: how long the server waits for it.
        folder: is made, for its files.

    Raises:
        PerfError: a program of Redis is not there, or does not come up.
    """
    folder.mkdir()
    if kind == "cluster":
        with redis_cluster(folder) as nodes:
            yield Store(nodes, timeout_ms, is_cluster=True)
    else:
        with RedisProcess(folder, "--enable-debug-command", "local", *DURABLE) as server:
            yield Store([server], timeout_ms, is_cluster=False)


def _record(layout: RecordLayout, items: Sequence[int], now_ms: int) -> bytes:
    record = layout.empty(1)
    record["count"], record["written_ms"] = len(items), now_ms
    record["history"][0, -len(items) :] = items
    record["time_ms"][0, -len(items) :] = now_ms - np.arange(len(items))[::-1]
    return record.tobytes()
