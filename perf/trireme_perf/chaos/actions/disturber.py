"""Processes beside our clients that disturb the server: they give way to the clients, whose lag would make a run invalid."""

from __future__ import annotations

import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from typing import Any

from trireme_perf.chaos.scene import Scene
from trireme_perf.errors import PerfError

__all__ = ["Disturb", "disturbing"]

PATIENCE_S, NICE = 60.0, 10

Disturb = Callable[..., Counter[str]]
"""Goes on until the event that comes first is set; returns what it counted. A function of a module."""


@contextmanager
def disturbing(scene: Scene, work: Disturb, *arguments: Any) -> Iterator[None]:
    """Runs ``work(event, *arguments)`` in a process, which has started when this yields, until the block is left; notes what it
    returns.

    Raises:
        PerfError: it does not start, has ended early, or does not end.
    """
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    here, there = context.Pipe()
    process = context.Process(target=_run, args=(_cores(scene), work, stop, there, arguments), daemon=True)
    process.start()
    there.close()
    try:
        _receive(here, f"{work.__name__} does not start")
        yield
        stop.set()
        found = _receive(here, f"{work.__name__} does not end")
    except EOFError:
        raise PerfError(f"{work.__name__} has ended without a result") from None
    finally:
        process.kill()
        process.join()
    if isinstance(found, str):
        raise PerfError(f"{work.__name__} failed: {found}")
    scene.note(**found)


def _receive(pipe: Connection, problem: str) -> Any:
    if not pipe.poll(PATIENCE_S):
        raise PerfError(problem)
    return pipe.recv()


def _cores(scene: Scene) -> set[int]:
    """All but those of the server and of the load, if there are more."""
    every = set(range(os.cpu_count() or 1)) & _allowed()
    return every - {scene.core, min(every)} or {min(every)}


def _allowed() -> set[int]:
    """What the process may use: this one is kept on the core of the load, its parent is not."""
    return os.sched_getaffinity(os.getppid())


def _run(cores: set[int], work: Disturb, stop: Event, pipe: Connection, arguments: tuple[Any, ...]) -> None:
    os.sched_setaffinity(0, cores)
    os.nice(NICE)
    pipe.send(True)
    try:
        pipe.send(dict(work(stop, *arguments)))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")
