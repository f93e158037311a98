"""The control groups that limit this process: those of a container, of a service, and those around them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

__all__ = ["CONTROL_GROUPS", "OWN_GROUPS", "control_groups", "usable_memory"]

CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")
#: Of both versions of control groups.
MEMORY_LIMITS = ("memory.max", "memory.limit_in_bytes")


def control_groups(controller: str, groups: Path = CONTROL_GROUPS, own: Path = OWN_GROUPS) -> Iterator[Path]:
    """Yields the folders of this process's groups and of those around them; in a container, the first may be hidden."""
    lines = own.read_text().splitlines() if own.is_file() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            roots = [groups, groups / "unified"]
        elif controller in controllers.split(","):
            roots = [groups / controller, groups / controllers]
        else:
            continue
        inside = Path(path.lstrip("/"))
        for root in roots:
            yield from (root / part for part in (inside, *inside.parents))


def usable_memory(groups: Path = CONTROL_GROUPS, own: Path = OWN_GROUPS) -> int:
    """Returns how many bytes the processes here can take: the memory of the machine, or the least limit of a control group."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for folder in control_groups("memory", groups, own):
        for name in MEMORY_LIMITS:
            with suppress(OSError, ValueError):  # the root has none, and "max" is none
                limits.append(int((folder / name).read_text()))
    return min(limits)
