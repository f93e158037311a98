"""A breaker: what failed several times in a row is left alone, so that its time-out is not paid again and again."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable

__all__ = ["FAILURES", "LONGEST_S", "PAUSE_S", "Breaker", "MakeBreaker"]

#: So many failures in a row open it.
FAILURES = 3
#: How long it waits before it tries, on average: at first, and at most. Each try that fails doubles it.
PAUSE_S, LONGEST_S = 0.5, 1.0


class Breaker:
    """Closed: everything is asked. Open: nothing is, and a thread tries until that goes well; no request waits for it. Then it is
    closed, and the next failure opens it again.

    Args:
        probe: tries once, and returns whether that went well. Runs in the thread.
        wait: lets so many seconds pass.
        jitter: from 0 to 1, by which pauses differ, so that the processes of a server do not all try at once.
    """

    def __init__(
        self,
        probe: Callable[[], bool],
        wait: Callable[[float], object] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._probe = probe
        self._wait = wait
        self._jitter = jitter
        self._failures = 0
        self._pause_s = PAUSE_S
        self._has_ended = False

    @property
    def is_closed(self) -> bool:
        """Whether to ask now. If not, only the thread changes anything."""
        return self._failures < FAILURES

    def succeeded(self) -> None:
        """To be called after it was closed and what it keeps was asked."""
        self._failures = 0
        self._pause_s = PAUSE_S

    def failed(self) -> None:
        """To be called after it was closed and what it keeps was asked."""
        self._failures += 1
        if not self.is_closed:
            threading.Thread(target=self._try, name="breaker", daemon=True).start()

    def end(self) -> None:
        """Lets the thread end after its pause: what it tries is not to be asked any more."""
        self._has_ended = True

    def _try(self) -> None:
        while True:
            self._wait(self._pause_s * (0.5 + self._jitter()))
            self._pause_s = min(2 * self._pause_s, LONGEST_S)
            if self._has_ended:
                return
            if self._probe():
                break
        self._failures = FAILURES - 1


#: Makes a breaker, given what tries.
MakeBreaker = Callable[[Callable[[], bool]], Breaker]
