"""Notices that a server takes more and more memory, before the kernel ends what it likes.

What counts is what is nobody else's: the private memory of tritonserver and its stubs, and the shared memory between them. Files
that are mapped, such as the tables of a bundle, do not: the kernel drops them when it needs their place.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trireme_server.stubs import find_stubs

LOOK_EVERY_S = 5.0
GB = 10**9
#: What a server takes when it is ready, with room for what its queues hold: one that takes so much of the limit from the start
#: would be restarted for ever.
TOO_MUCH = 0.8


def memory_of(server: int, shm_prefix: str, proc: Path = Path("/proc"), memory: Path = Path("/dev/shm")) -> int:
    """Returns the bytes that a server with its stubs takes."""
    total = 0
    for pid in (server, *(stub.pid for stub in find_stubs(shm_prefix, proc))):
        with suppress(OSError):  # it ends at this moment
            status = (proc / str(pid) / "status").read_text()
            total += sum(
                1024 * int(size) for size in re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+) kB$", status, re.MULTILINE)
            )
    for region in memory.glob(f"{shm_prefix}*"):
        with suppress(OSError):
            total += 512 * region.stat().st_blocks
    return total


class MemoryWatch:
    """Looks at the memory of one server, which is ready.

    Args:
        taken: returns the bytes that it takes.
        limit: what it may take, bytes.
        say: is given a line if it takes nearly as much from the start; it is not watched then.
        clock: seconds, rising.
    """

    def __init__(
        self,
        taken: Callable[[], int],
        limit: float,
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._taken = taken
        self._limit = limit
        self._clock = clock
        self._due = clock() + LOOK_EVERY_S
        at_start = taken()
        self._watches = at_start < TOO_MUCH * limit
        if not self._watches:
            say(
                f"the server takes {at_start / GB:.2f} GB of memory when it is ready, of a limit of {limit / GB:.2f} GB; "
                "its memory is not watched"
            )

    def look(self) -> str | None:
        """Returns why the server should be started anew, or None."""
        if not self._watches or self._clock() < self._due:
            return None
        self._due = self._clock() + LOOK_EVERY_S
        taken = self._taken()
        if taken <= self._limit:
            return None
        return f"it takes {taken / GB:.2f} GB of memory; the limit is {self._limit / GB:.2f} GB"
