"""Tells who watches the server since when an instance has been computing, so that one that hangs is noticed.

Two numbers in shared memory, written at each batch: the file belongs to the process of the instance, whose threads may all hang.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trireme_runtime.schema import BUSY_PREFIX
from trireme_runtime.triton.clock import monotonic_ns

__all__ = ["busy_file", "noting", "read_busy"]

_NUMBERS = struct.Struct("=qq")
SINCE, LONGEST = 0, 1

Execute = Callable[[list[Any]], list[Any] | None]


def busy_file(prefix: str, pid: int) -> Path:
    """Returns where the process ``pid`` writes."""
    return Path(f"{prefix}{pid}")


def read_busy(file: Path) -> tuple[int, int] | None:
    """Returns when the batch that is computed began, 0 for none, and how long the longest one took, in ns of the monotonic
    clock; None for a process that does not tell."""
    try:
        since, longest = _NUMBERS.unpack(file.read_bytes())
    except (OSError, struct.error):
        return None
    return since, longest


def noting(execute: Execute, prefix: str | None = None) -> Execute:
    """Returns ``execute`` with its beginning and end noted; itself where the environment names no place for that."""
    prefix = os.environ.get(BUSY_PREFIX) if prefix is None else prefix
    if not prefix:
        return execute
    with busy_file(prefix, os.getpid()).open("wb+") as file:
        file.truncate(_NUMBERS.size)
        numbers = memoryview(mmap.mmap(file.fileno(), _NUMBERS.size)).cast("q")

    def noted(requests: list[Any]) -> list[Any] | None:
        began = numbers[SINCE] = monotonic_ns()
        try:
            return execute(requests)
        finally:
            took = monotonic_ns() - began
            if took > numbers[LONGEST]:
                numbers[LONGEST] = took
            numbers[SINCE] = 0

    return noted
