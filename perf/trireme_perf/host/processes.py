"""The processes of a server, which they are, whether they run, and the CPU time that they used."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

__all__ = ["alive", "cpu_seconds", "family"]


def family(root: int, marker: bytes | None = None) -> list[int]:
    """Returns the ids of ``root``, of all processes that carry ``marker`` in their environment, and of their descendants.

    Parentage alone loses daemons, which the init process adopts; the environment alone loses processes that
    wrote a title over it.
    """
    parents: dict[int, int] = {}
    found = {root}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):  # it ended meanwhile, or is another user's
            parents[process.pid] = process.ppid()
            if marker and marker in Path(f"/proc/{process.pid}/environ").read_bytes():
                found.add(process.pid)
    while children := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= children
    return sorted(found & parents.keys())


def alive(pids: Iterable[int]) -> set[int]:
    """Returns those that still run; one that has ended and waits for its parent to notice does not."""
    running = set()
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            if psutil.Process(pid).status() not in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD):
                running.add(pid)
    return running


def cpu_seconds(pids: Iterable[int]) -> float:
    """Returns the user and system time of the processes and of their children that have ended."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.Error, OSError):
            ended = psutil.Process(pid).cpu_times()
            # psutil counts whole ticks (10 ms), this clock ns; its id as of clock_getcpuclockid(3).
            total += time.clock_gettime((~pid << 3) | 2) + ended.children_user + ended.children_system
    return total
