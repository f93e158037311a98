"""What processes use, read from /proc: CPU time, memory, and the time that the machine was not given."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Meter", "Usage", "alive", "cpu_seconds", "family", "pinned", "pss_bytes"]

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keeps the calling thread, and what it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def family(root: int, marker: bytes) -> list[int]:
    """Process ids of ``root``, of all that carry ``marker`` in their environment, and of their descendants.

    Parentage alone loses daemons, which the init process adopts; the environment alone loses processes that
    wrote a title over it.
    """
    parents: dict[int, int] = {}
    found = {root}
    for directory in PROC.glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            pid = int(directory.name)
            parents[pid] = int(_stat(pid)[1])
            if marker in (directory / "environ").read_bytes():
                found.add(pid)
    grown = True
    while grown:
        children = {pid for pid, parent in parents.items() if parent in found} - found
        found |= children
        grown = bool(children)
    return sorted(found & parents.keys())


def alive(pids: Iterable[int]) -> set[int]:
    """Those that still run; one that has ended and waits for its parent to notice does not."""
    running = set()
    for pid in pids:
        with contextlib.suppress(OSError):
            if _stat(pid)[0] not in "ZX":
                running.add(pid)
    return running


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes, and of their children that have ended."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            ended = sum(int(field) for field in _stat(pid)[13:15]) / TICKS_PER_S
            # /proc counts whole ticks (10 ms), this clock ns; its id as of clock_getcpuclockid(3).
            total += time.clock_gettime((~pid << 3) | 2) + ended
    return total


def pss_bytes(pids: Iterable[int]) -> int:
    """Proportional set size: what is shared by n processes counts 1/n in each of them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            rollup = (PROC / str(pid) / "smaps_rollup").read_text()
            total += sum(int(line.split()[1]) * 1024 for line in rollup.splitlines() if line.startswith("Pss:"))
    return total


def _stat(pid: int) -> list[str]:
    """Fields of /proc/<pid>/stat from the third on; the second, the name, may hold anything."""
    return (PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()


@dataclass(frozen=True)
class Usage:
    """Between two moments: seconds on the clock, CPU seconds of server and load generator (this process), and of the
    time of all cores the shares that the host gave to others, and that other processes here used: a quiet machine has
    neither. Of a server whose processes are unknown, server_cpu_s is 0 and others_share includes it."""

    wall_s: float
    server_cpu_s: float
    load_cpu_s: float
    steal_share: float
    others_share: float


class Meter:
    """Reads the usage since it was made.

    Args:
        root, marker: the server's processes, see ``family``; root None if they are unknown.
    """

    def __init__(self, root: int | None = None, marker: bytes = b"") -> None:
        self._root, self._marker = root, marker
        self._server_cpu_s = self._read_server()
        self._machine = _machine_ticks()
        self._load_cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def read(self) -> Usage:
        # Own clocks first: looking for the processes takes milliseconds, which are not the load generator's.
        wall, load = time.perf_counter() - self._wall_s, time.process_time() - self._load_cpu_s
        steal, busy, every = (now - before for now, before in zip(_machine_ticks(), self._machine, strict=True))
        server = self._read_server() - self._server_cpu_s
        others = max(0.0, busy - (server + load) * TICKS_PER_S)  # clocks of different grain: may be just below 0
        return Usage(wall, server, load, steal / max(1, every), others / max(1, every))

    def _read_server(self) -> float:
        return 0.0 if self._root is None else cpu_seconds(family(self._root, self._marker))


def _machine_ticks() -> tuple[int, int, int]:
    """Stolen, used by processes, and all ticks of all cores since the machine started. Interrupts are nobody's."""
    # The two columns after steal, guest time, are contained in the first two.
    ticks = [int(field) for field in (PROC / "stat").read_text().partition("\n")[0].split()[1:9]]
    user, nice, system, *_, steal = ticks
    return steal, user + nice + system, sum(ticks)
