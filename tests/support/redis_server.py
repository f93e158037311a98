"""A real redis-server that writes an append-only file, and can be killed, frozen and started again."""

from __future__ import annotations

from pathlib import Path

from trireme_perf.features.redis_process import DURABLE, RedisProcess

__all__ = ["RedisServer", "redis_server"]

RedisServer = RedisProcess


def redis_server(folder: Path) -> RedisServer:
    """For a ``with`` block; what was written survives ``kill`` and ``start``."""
    return RedisProcess(folder, *DURABLE)
