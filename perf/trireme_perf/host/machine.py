"""What the machine is that was measured on."""

from __future__ import annotations

import os

from trireme_runtime.cpu import cpu_model

__all__ = ["machine"]


def machine() -> str:
    """Returns the machine in a few words: usable cores and processor."""
    cores = len(os.sched_getaffinity(0))
    return f"{cores} {'core' if cores == 1 else 'cores'}, {cpu_model()}"
