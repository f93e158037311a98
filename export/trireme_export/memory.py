"""The memory that a server will need for a bundle, measured in a process that loads it and answers, as an instance does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from trireme_export.errors import ExportError
from trireme_runtime.stages.chain import Funnel

__all__ = ["measure_memory"]

PROGRAM = """
import json, sys
from pathlib import Path
import numpy as np
from trireme_runtime.stages.chain import Funnel
from trireme_runtime.onnx_model import one_thread

one_thread()
folder = Path(sys.argv[1])
funnel = Funnel.load(folder)
users = np.load(folder / "users.npy")
for start in range(0, len(users), 64):
    funnel(users[start : start + 64])
rollup = dict(line.split(":") for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
print(json.dumps({"private_bytes_per_instance": int(rollup["Anonymous"].split()[0]) * 1024}))
"""


def measure_memory(funnel: Funnel, users: np.ndarray) -> dict[str, int]:
    """Measures the artifacts, which all instances map and share, and what each instance needs beside them, in bytes.

    Args:
        funnel: as exported.
        users: int64 [n, 1], ids of the users that are asked for.

    Returns:
        ``{"artifact_bytes", "private_bytes_per_instance"}``; the second includes the interpreter and the libraries' heap.

    Raises:
        ExportError: the saved funnel cannot be loaded and asked.
    """
    with tempfile.TemporaryDirectory(prefix="trireme-memory-") as name:
        folder = Path(name)
        funnel.save(folder)
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        np.save(folder / "users.npy", users[:512])
        done = subprocess.run([sys.executable, "-c", PROGRAM, name], capture_output=True, text=True)
    if done.returncode < 0:
        raise ExportError(
            f"the process that loads the exported funnel ended by {signal.Signals(-done.returncode).name}: its artifacts have "
            f"{size / 1e6:,.0f} MB, and it may need more memory than there is"
        )
    if done.returncode:
        (*_, reason) = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ExportError(f"the exported funnel cannot be loaded: {reason}")
    return {"artifact_bytes": size, **json.loads(done.stdout)}
