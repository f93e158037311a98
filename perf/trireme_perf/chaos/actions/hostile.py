"""A flood of malformed and hostile requests over gRPC."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from multiprocessing.synchronize import Event
from typing import Annotated, Any

import grpc
from pydantic import Field

from trireme_perf.chaos.actions.callers import INFER
from trireme_perf.chaos.actions.disturber import disturbing
from trireme_perf.chaos.actions.requests import hostile_requests
from trireme_perf.chaos.scene import Scene
from trireme_runtime.bundle import read_manifest
from trireme_server.configs import read_config

__all__ = ["hostile"]

IN_FLIGHT, POLL_S, TIMEOUT_S = 16, 0.001, 30.0
#: What Trireme's models say to a request that reaches them and is wrong; Triton has other words for what it refuses itself.
REACHED = re.compile(r"\ballowed (is|are)\b|, one number is allowed|, int64 \[batch, ")


@contextmanager
def hostile(scene: Scene, requests: Annotated[int, Field(ge=1)] = 10_000) -> Iterator[None]:
    """Malformed and hostile requests, at most so many, as fast as 16 at once go; see ``requests.hostile_requests``.

    Notes the share of them that reached a model, and what was answered.
    """
    config = read_config(scene.repository / scene.model / "config.pbtxt")
    sizes = (read_manifest(scene.repository).dims.history, config.max_batch_size)
    with disturbing(scene, _hostile, scene.server.grpc, scene.model, scene.users, sizes, requests, scene.seed):
        yield
    sent = scene.notes.get("requests", 0)
    scene.note(reached=scene.notes.pop("reached", 0) / sent if sent else None)


def _hostile(
    stop: Event, url: str, model: str, users: Sequence[int], sizes: tuple[int, int], requests: int, seed: int
) -> Counter[str]:
    counts = Counter[str]()
    with grpc.insecure_channel(url, options=[("grpc.max_reconnect_backoff_ms", 500)]) as channel:
        infer = channel.unary_unary(INFER)
        flying: list[Any] = []
        for message in islice(hostile_requests(model, users, *sizes, seed), requests):
            if stop.is_set():
                break
            flying.append(infer.future(message, timeout=TIMEOUT_S))
            while len(flying) >= IN_FLIGHT:
                time.sleep(POLL_S)
                flying = [call for call in flying if not _landed(call, counts)]
        for call in flying:
            call.exception()
            _landed(call, counts)
    return counts


def _landed(call: Any, counts: Counter[str]) -> bool:
    """Counts a call if it has ended, and returns whether it has."""
    if not call.done():
        return False
    code = call.code()
    counts["requests"] += 1
    counts[code.name.lower()] += 1
    counts["reached"] += code is grpc.StatusCode.OK or REACHED.search(call.details() or "") is not None
    return True
