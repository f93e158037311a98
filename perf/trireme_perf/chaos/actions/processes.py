"""Faults of the server's processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

from pydantic import PositiveFloat

from trireme_perf.chaos.scene import Scene

__all__ = ["kill_server", "kill_stub", "pause_server", "stop_server", "stop_stub"]


@contextmanager
def kill_stub(scene: Scene) -> Iterator[None]:
    """Kills the process of one instance."""
    _to_a_stub(scene, signal.SIGKILL)
    yield


@contextmanager
def stop_stub(scene: Scene) -> Iterator[None]:
    """Stops the process of one instance, and never continues it: the server would not survive that."""
    _to_a_stub(scene, signal.SIGSTOP)
    yield


@contextmanager
def kill_server(scene: Scene) -> Iterator[None]:
    """Kills tritonserver."""
    pid = scene.server.tritonserver()
    scene.note(killed=pid)
    os.kill(pid, signal.SIGKILL)
    yield


@contextmanager
def stop_server(scene: Scene) -> Iterator[None]:
    """Stops tritonserver; lifted, it goes on if nobody has ended it."""
    pid = scene.server.tritonserver()
    scene.note(stopped=pid)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def pause_server(scene: Scene, ms: PositiveFloat = 300, runs_ms: PositiveFloat = 700) -> Iterator[None]:
    """Stops tritonserver for ``ms``, and again whenever it has run for ``runs_ms``."""
    pid, lifted = scene.server.tritonserver(), Event()

    def pause() -> None:
        with suppress(ProcessLookupError):  # somebody has ended it
            while not lifted.wait(runs_ms / 1e3):
                os.kill(pid, signal.SIGSTOP)
                lifted.wait(ms / 1e3)
                os.kill(pid, signal.SIGCONT)

    thread = Thread(target=pause, daemon=True)
    thread.start()
    try:
        yield
    finally:
        lifted.set()
        thread.join()


def _to_a_stub(scene: Scene, number: signal.Signals) -> None:
    instance, pid = scene.server.stubs(scene.model)[0]
    scene.note(instance=instance, process=pid)
    os.kill(pid, number)
