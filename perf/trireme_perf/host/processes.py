"""The processes of a server, read from /proc: which they are, whether they run, and the CPU time that they used."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["PROC", "TICKS_PER_S", "alive", "cpu_seconds", "family"]

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def family(root: int, marker: bytes | None = None) -> list[int]:
    """Returns the ids of ``root``, of all processes that carry ``marker`` in their environment, and of their descendants.

    Parentage alone loses daemons, which the init process adopts; the environment alone loses processes that
    wrote a title over it.
    """
    parents: dict[int, int] = {}
    found = {root}
    for directory in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            pid = int(directory.name)
            parents[pid] = int(_stat(pid)[1])
            if marker and marker in (directory / "environ").read_bytes():
                found.add(pid)
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        grown = bool(children)
    return sorted(found & parents.keys())


def alive(pids: Iterable[int]) -> set[int]:
    """Returns those that still run; one that has ended and waits for its parent to notice does not."""
    running = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if _stat(pid)[0] not in "ZX":
                running.add(pid)
    return running


def cpu_seconds(pids: Iterable[int]) -> float:
    """Returns the user and system time of the processes and of their children that have ended."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            ended = sum(int(field) for field in _stat(pid)[13:15]) / TICKS_PER_S
            # /proc counts whole ticks (10 ms), this clock ns; its id as of clock_getcpuclockid(3).
            total += time.clock_gettime((~pid << 3) | 2) + ended
    return total


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the third on; the second, the name, may hold anything."""
    return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
