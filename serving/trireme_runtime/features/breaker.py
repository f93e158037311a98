"""A breaker: what failed several times in a row is left alone for a while, so that its time-out is not paid again and again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

__all__ = ["FAILURES", "LONGEST_S", "PAUSE_S", "Breaker"]

#: So many failures in a row open it.
FAILURES = 3
#: How long it stays open, on average: at first, and at most. Each try that fails doubles it.
PAUSE_S, LONGEST_S = 0.5, 8.0


class Breaker:
    """Closed: everything is tried. Open: nothing, for a pause. Then one try decides.

    Args:
        clock: seconds, rising.
        jitter: from 0 to 1, by which pauses differ, so that the processes of a server do not all try at once.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, jitter: Callable[[], float] = random.random
    ) -> None:
        self._clock = clock
        self._jitter = jitter
        self._failures = 0
        self._pause_s = PAUSE_S
        self._until = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether the last tries do not speak against the next one."""
        return self._failures < FAILURES

    def allows(self) -> bool:
        """Whether to try now."""
        return self.is_closed or self._clock() >= self._until

    def succeeded(self) -> None:
        """To be called after a try."""
        self._failures = 0
        self._pause_s = PAUSE_S

    def failed(self) -> None:
        """To be called after a try."""
        self._failures += 1
        if not self.is_closed:
            self._until = self._clock() + self._pause_s * (0.5 + self._jitter())
            self._pause_s = min(2 * self._pause_s, LONGEST_S)
