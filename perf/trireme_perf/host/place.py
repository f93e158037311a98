"""Where a measurement runs: a core for the servers, another for the load, and a folder for the logs."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trireme_perf.errors import PerfError
from trireme_perf.host.usage import pinned

__all__ = ["Place", "own_place"]


@dataclass(frozen=True)
class Place:
    """core: the only one that servers may use. folder: for their logs. load_cores: all others."""

    core: int
    folder: Path
    load_cores: tuple[int, ...] = ()


@contextmanager
def own_place() -> Iterator[Place]:
    """Keeps this process, which is the load generator, on one core, and gives servers another; the folder is temporary.

    Raises:
        PerfError: this process may use fewer than two cores.
    """
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise PerfError("this process may use 1 core; 2 are needed, one for the servers and one for the load")
    with tempfile.TemporaryDirectory(prefix="trireme-perf-") as folder, pinned(cores[0]):
        yield Place(cores[-1], Path(folder), tuple(cores[:-1]))
