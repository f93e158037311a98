"""What a server and the load generator use, and the time that the machine was not given."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from trireme_perf.host.processes import PROC, TICKS_PER_S, cpu_seconds, family

__all__ = ["Meter", "Usage", "pinned"]


@contextmanager
def pinned(core: int) -> Iterator[None]:
    """Keeps the calling thread, and what it starts meanwhile, on one core."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


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
