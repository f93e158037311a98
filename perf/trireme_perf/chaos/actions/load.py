"""Faults that leave the server less time: more load, a slow stage, another program on its core."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from pydantic import Field

from trireme_perf.chaos.scene import Scene

__all__ = ["hog", "slow_stage"]

SPIN = "while True: pass"
Stage = Literal["feature_transform", "user_tower", "retrieval", "ranking", "reranking"]


@contextmanager
def slow_stage(
    scene: Scene, stage: Stage, ms: Annotated[float, Field(ge=0)] = 0.0, factor: Annotated[float, Field(ge=0)] = 0.0
) -> Iterator[None]:
    """Has a stage compute for ``ms``, and ``factor`` times its own time, longer for each batch."""
    assert scene.slow is not None
    scene.slow.set(stage, ms=ms, factor=factor)
    try:
        yield
    finally:
        scene.slow.clear()


@contextmanager
def hog(scene: Scene, processes: Annotated[int, Field(ge=1, le=64)] = 1) -> Iterator[None]:
    """Runs programs on the server's core that take as much of it as they get."""
    started = [
        subprocess.Popen([sys.executable, "-c", SPIN], preexec_fn=lambda: os.sched_setaffinity(0, {scene.core}))
        for _ in range(processes)
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()
