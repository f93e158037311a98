"""The memory of a fresh process that computes a funnel."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from trireme_perf.errors import PerfError
from trireme_perf.host.memory import process_memory
from trireme_server.command import THREADS

__all__ = ["funnel_memory"]

#: Run by `funnel_memory`; stops twice, to be looked at.
PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from trireme_runtime.stages.chain import Funnel
users, batch = np.load(sys.argv[2]), int(sys.argv[3])
print("imported", flush=True)
sys.stdin.readline()
funnel = Funnel.load(Path(sys.argv[1]))
for start in range(0, len(users), batch):
    funnel(users[start : start + batch])
print("answered", flush=True)
sys.stdin.readline()
"""


def funnel_memory(folder: Path, users: np.ndarray, batch: int) -> dict[str, int]:
    """Returns the memory of a fresh process, on one thread, that loads a funnel and answers ``users``, ``batch`` at a time.

    Args:
        folder: what ``Funnel.save`` wrote. No other process may have it loaded, or its pages are counted in part.
        users: int64 [n, 1].
        batch: users per call.

    Returns:
        As ``process_memory``, with ``libraries_pss``: the PSS before the funnel was loaded.

    Raises:
        PerfError: the funnel cannot be loaded or does not answer; with the last line that it printed.
    """
    with tempfile.TemporaryDirectory(prefix="trireme-memory-") as scratch:
        np.save(Path(scratch) / "users.npy", users)
        command = [sys.executable, "-c", PROGRAM, str(folder), f"{scratch}/users.npy", str(batch)]
        with subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | THREADS,
        ) as process:
            _wait_for(process, "imported", folder)
            libraries = process_memory(process.pid)["pss"]
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
            _wait_for(process, "answered", folder)
            return {**process_memory(process.pid, folder), "libraries_pss": libraries}


def _wait_for(process: subprocess.Popen[str], word: str, folder: Path) -> None:
    assert process.stdout is not None
    assert process.stderr is not None
    if process.stdout.readline().strip() != word:
        printed = process.stderr.read().strip().splitlines() or ["it printed nothing"]
        raise PerfError(f"{folder}: a process with this funnel ended before it had {word} ({printed[-1]})")
