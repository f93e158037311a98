"""What processes hold in memory, and files on disk; Linux only, sizes in bytes.

The proportional set size (PSS) of a process counts a page that n processes map as 1/n of it, so that the sum over a server's
processes is what the server holds (Linux, Documentation/filesystems/proc.rst). Artifacts that are mapped from their files cost
the same for one instance and for ten; what is copied to the heap costs again for each.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from pathlib import Path

import psutil

from trireme_perf.errors import PerfError
from trireme_perf.host.processes import family

__all__ = ["artifact_bytes", "process_memory", "pss_bytes", "tree_memory", "unmapped_bytes"]

#: Lines of /proc/PID/smaps_rollup, in kB.
UNMAPPED = re.compile(r"^(?:Pss_Anon|Pss_Shmem|SwapPss): +(\d+) kB$", re.MULTILINE)


def pss_bytes(pids: Iterable[int]) -> int:
    """Returns the PSS of those of the processes that live."""
    total = 0
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(pid).memory_full_info().pss
    return total


def unmapped_bytes(pids: Iterable[int]) -> int:
    """Returns the PSS of those of the processes that live, without files that they map: those the kernel drops and reads again as
    it likes, and their share depends on who else maps them. What is swapped out counts."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii")
            total += sum(1024 * int(size) for size in UNMAPPED.findall(text))
    return total


def process_memory(pid: int, artifacts: Path | None = None) -> dict[str, int]:
    """Returns the memory of one process: ``{"pss", "shared", "private", "artifact_pss"}`` in bytes.

    Args:
        pid: a process of this user.
        artifacts: ``artifact_pss`` is the PSS of what is mapped from files under this directory; 0 without one.

    Raises:
        PerfError: there is no such process, or it may not be looked into.
    """
    try:
        process = psutil.Process(pid)
        pss, files = process.memory_full_info().pss, process.memory_maps()
    except psutil.Error as error:
        raise PerfError(f"memory of process {pid} cannot be read ({error}); it must live and be yours") from None
    folder = artifacts.resolve() if artifacts else None
    return {
        "pss": pss,
        "shared": sum(file.shared_clean + file.shared_dirty for file in files),
        "private": sum(file.private_clean + file.private_dirty for file in files),
        "artifact_pss": sum(file.pss for file in files if folder and Path(file.path).is_relative_to(folder)),
    }


def tree_memory(pid: int, artifacts: Path | None = None) -> dict[str, int]:
    """Returns ``process_memory`` summed over the process and its descendants, and ``processes``, their number.

    A page that is shared counts once per process in ``shared``, and once in all in ``pss``.

    Raises:
        PerfError: there is no such process, or one of them may not be looked into.
    """
    each = [process_memory(process, artifacts) for process in family(pid) or [pid]]
    return {"processes": len(each), **{name: sum(one[name] for one in each) for name in each[0]}}


def artifact_bytes(folder: Path) -> int:
    """Returns the size of all files under ``folder``; those that are hard links to one file count once."""
    sizes = {}
    for path in folder.rglob("*"):
        if path.is_file():
            status = path.stat()
            sizes[status.st_dev, status.st_ino] = status.st_size
    return sum(sizes.values())
