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

from trireme_perf.errors import PerfError
from trireme_perf.host.processes import PROC, family

__all__ = ["artifact_bytes", "process_memory", "pss_bytes", "tree_memory"]

MAPPING = re.compile(r"[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \d+ *(.*)")
KIB = 1024


def pss_bytes(pids: Iterable[int]) -> int:
    """Returns the PSS of those of the processes that live."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += _rollup(pid)["Pss"]
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
        rollup = _rollup(pid)
        mappings = (PROC / str(pid) / "smaps").read_text() if artifacts else ""
    except OSError as error:
        raise PerfError(
            f"memory of process {pid} cannot be read ({error.strerror}); it must live and be yours"
        ) from None
    return {
        "pss": rollup["Pss"],
        "shared": rollup["Shared_Clean"] + rollup["Shared_Dirty"],
        "private": rollup["Private_Clean"] + rollup["Private_Dirty"],
        "artifact_pss": _mapped_pss(mappings, artifacts.resolve()) if artifacts else 0,
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


def _rollup(pid: int) -> dict[str, int]:
    return _fields((PROC / str(pid) / "smaps_rollup").read_text().splitlines()[1:])


def _fields(lines: Iterable[str]) -> dict[str, int]:
    """Bytes by name from lines such as ``Pss:  12 kB``."""
    parts = (line.split() for line in lines)
    return {words[0].rstrip(":"): int(words[1]) * KIB for words in parts if words[2:] == ["kB"]}


def _mapped_pss(smaps: str, folder: Path) -> int:
    total, inside = 0, False
    for line in smaps.splitlines():
        if mapping := MAPPING.fullmatch(line):
            inside = Path(mapping[1].removesuffix(" (deleted)")).is_relative_to(folder)
        elif inside and line.startswith("Pss:"):
            total += int(line.split()[1]) * KIB
    return total
