"""Which calls are made in the thread of their caller, on servers that do not survive cancels. It makes no RPC.

Nothing but a deadline of gRPC's ends a blocking call, and that is a cancel at the server. A thread of the client's own can be
left behind instead, but two hand-overs between threads are a quarter of what a call costs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

# Seconds without such calls after one that ran out of time. It takes hundreds of cancels to kill a server.
_PAUSE = 60.0


class DirectCalls:
    """One call at a time, and none within a minute of one that ran out of time: that is how many cancels a server gets."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._turn = threading.Lock()
        self._again_at = float("-inf")

    def begin(self) -> bool:
        """Returns whether a call may be made in the thread of its caller; ``end`` follows if it may."""
        return self._now() >= self._again_at and self._turn.acquire(blocking=False)

    def end(self) -> None:
        """Notes the end of such a call."""
        self._turn.release()

    def late(self) -> None:
        """Notes a call that ran out of time, whoever made it."""
        self._again_at = self._now() + _PAUSE
