"""Faults of the feature store."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

from pydantic import Field

from trireme_perf.chaos.scene import Scene
from trireme_perf.features.redis_process import RedisProcess

__all__ = ["NEEDED", "freeze_redis", "kill_master", "kill_redis", "slow_redis"]


@contextmanager
def freeze_redis(scene: Scene) -> Iterator[None]:
    """Stops Redis, whose connections stay open; lifted, it goes on."""
    node = _first(scene)
    node.freeze()
    try:
        yield
    finally:
        node.thaw()


@contextmanager
def kill_redis(scene: Scene) -> Iterator[None]:
    """Kills Redis; lifted, it is started again, and knows what it knew."""
    node = _first(scene)
    node.kill()
    try:
        yield
    finally:
        node.start()


@contextmanager
def slow_redis(scene: Scene, ms: Annotated[float, Field(gt=0, le=5000)] = 200.0) -> Iterator[None]:
    """Keeps Redis busy with one command after the other that takes ``ms``: what is asked meanwhile waits for its end."""
    node, lifted = _first(scene), threading.Event()

    def keep_busy() -> None:
        with node.connect() as connection:
            while not lifted.is_set():
                connection.execute_command("DEBUG", "SLEEP", ms / 1e3)

    thread = threading.Thread(target=keep_busy, name="slow redis", daemon=True)
    thread.start()
    try:
        yield
    finally:
        lifted.set()
        thread.join()


@contextmanager
def kill_master(scene: Scene) -> Iterator[None]:
    """Kills the master that the address of the store names, for good; its replica takes over."""
    _first(scene).kill()
    yield


#: What they need `serving.features.store` to be.
NEEDED: Mapping[str, str] = {
    freeze_redis.__name__: "redis",
    kill_redis.__name__: "redis",
    slow_redis.__name__: "redis",
    kill_master.__name__: "cluster",
}


def _first(scene: Scene) -> RedisProcess:
    assert scene.store is not None
    return scene.store.nodes[0]
