"""The processor of this machine, and how much of it this process may use."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterator
from pathlib import Path

__all__ = ["cpu_model", "usable_cpus"]

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def cpu_model() -> str:
    """Returns the name of the processor."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def usable_cpus(cpus: Collection[int] | None = None, groups: Path = CONTROL_GROUPS, own: Path = OWN_GROUPS) -> int:
    """Returns how many CPUs a process of these CPUs can keep busy, at least 1.

    A container is usually limited by a quota of CPU time, which leaves all CPUs visible. A part of a CPU does not count.

    Args:
        cpus: those it may run on; None for those of this process.
        groups, own: where the kernel shows the control groups, and which are this process's.
    """
    count = len(os.sched_getaffinity(0) if cpus is None else cpus)
    return max(1, min([count, *map(int, _quotas(groups, own))]))


def _quotas(groups: Path, own: Path) -> Iterator[float]:
    """Yields the quota of each control group that this process is in, in CPUs."""
    for folder in _folders(groups, own):
        try:
            if (folder / "cpu.max").is_file():  # version 2
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if quota != "max" and int(quota) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError):
            continue  # the root has no quota


def _folders(groups: Path, own: Path) -> Iterator[Path]:
    """Yields the folders of this process's groups and of those around them; in a container, the first may be hidden."""
    lines = own.read_text().splitlines() if own.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots = [groups, groups / "unified"]
        elif "cpu" in controllers.split(","):
            roots = [groups / "cpu", groups / "cpu,cpuacct"]
        else:
            continue
        inside = Path(path.lstrip("/"))
        for root in roots:
            yield from (root / part for part in (inside, *inside.parents))
