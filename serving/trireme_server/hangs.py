"""Notices instances that live and do not get done: a deadlock, or a loop without end. A canary cannot: no request can be
addressed to one instance.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from trireme_runtime.triton.busy import busy_file, read_busy

#: A batch that takes so long, and so many times as long as the longest one before it, will not end.
LEAST_S, TIMES = 5.0, 10
#: What counts of the time between two looks at most: where all processes are frozen together, such as in a container that is
#: paused, the batch does not go on either.
STEP_S = 0.5


class HangWatch:
    """Adds up how long instances compute one batch.

    Args:
        prefix: of the files in which they tell.
        clock: seconds, rising.
    """

    def __init__(self, prefix: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._prefix = prefix
        self._clock = clock
        self._batches: dict[int, tuple[int, float, float]] = {}

    def hangs(self, pid: int) -> bool:
        """Whether the process computes a batch that will not end; to be asked again and again."""
        busy = read_busy(busy_file(self._prefix, pid))
        if busy is None or busy[0] == 0:
            self._batches.pop(pid, None)
            return False
        (since, longest_ns), now = busy, self._clock()
        began, looked, seconds = self._batches.get(pid, (since, now, 0.0))
        seconds = seconds + min(now - looked, STEP_S) if began == since else 0.0
        self._batches[pid] = since, now, seconds
        return seconds > max(LEAST_S, TIMES * longest_ns / 1e9)

    def forget(self, pid: int) -> None:
        """Removes what a process told that has ended."""
        self._batches.pop(pid, None)
        busy_file(self._prefix, pid).unlink(missing_ok=True)
