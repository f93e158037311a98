"""What a server and the load generator use, and the time that the machine was not given."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

from trireme_perf.host.processes import cpu_seconds, family

__all__ = ["Meter", "Usage", "pinned"]

#: The grain of the times of the machine.
TICK_S = 0.01


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
    """Between two moments: seconds on the clock, CPU seconds of server and load generator, and of the
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
        generators: processes of the load generator besides this one.
    """

    def __init__(self, root: int | None = None, marker: bytes = b"", generators: Sequence[int] = ()) -> None:
        self._root, self._marker, self._generators = root, marker, generators
        self._server_cpu_s = self._read_server()
        self._machine = _machine_seconds()
        self._load_cpu_s, self._wall_s = self._read_load(), time.perf_counter()

    def read(self) -> Usage:
        # Own clocks first: looking for the processes takes milliseconds, which are not the load generator's.
        wall, load = time.perf_counter() - self._wall_s, self._read_load() - self._load_cpu_s
        steal, busy, every = (now - before for now, before in zip(_machine_seconds(), self._machine, strict=True))
        server = self._read_server() - self._server_cpu_s
        others = max(0.0, busy - server - load)  # clocks of different grain: may be just below 0
        return Usage(wall, server, load, steal / max(TICK_S, every), others / max(TICK_S, every))

    def _read_load(self) -> float:
        return time.process_time() + cpu_seconds(self._generators)

    def _read_server(self) -> float:
        return 0.0 if self._root is None else cpu_seconds(family(self._root, self._marker))


def _machine_seconds() -> tuple[float, float, float]:
    """Stolen, used by processes, and all time of all cores since the machine started. Interrupts are nobody's."""
    times = psutil.cpu_times()
    # Guest time is contained in user and nice.
    every = sum(times) - times.guest - times.guest_nice
    return times.steal, times.user + times.nice + times.system, every
