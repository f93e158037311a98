"""The processor of this machine, and how much of it this process may use."""

from __future__ import annotations

import os
import platform
from collections.abc import Collection, Iterator
from pathlib import Path

from trireme_runtime.control_groups import CONTROL_GROUPS, OWN_GROUPS, control_groups

__all__ = ["cpu_model", "usable_cpus"]


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
    for folder in control_groups("cpu", groups, own):
        try:
            if (folder / "cpu.max").is_file():  # version 2
                quota, period = (folder / "cpu.max").read_text().split()
            else:
                quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
            if quota != "max" and int(quota) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError):
            continue  # the root has no quota
