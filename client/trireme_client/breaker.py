"""Whether a server is asked at all, from how its last RPCs ended. It makes no RPC, and the time is passed in."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import Literal, Protocol

State = Literal["closed", "open", "half_open"]

# RPCs in a row that fail until a server is no longer asked.
_MOST_FAILURES = 5

# Seconds until it is tried again, doubled each time that it fails, at most; each of them gets 50 to 100 % of that by chance, so
# that many clients do not come back at the same moment.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 8.0


class Breaker:
    """A circuit breaker: open after failures in a row, half open while one probe decides, closed after any answer.

    Args:
        now: the clock, seconds.
        chance: random numbers from 0 to 1.
        became: is told each new state.
    """

    def __init__(
        self,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        became: Callable[[State], None] = lambda state: None,
    ) -> None:
        self._now, self._chance, self._became = now, chance, became
        self._lock = threading.Lock()
        self._failures = 0
        self._pause = _FIRST_PAUSE
        self._until = 0.0
        self.state: State = "closed"

    def answered(self) -> None:
        """Notes an answer."""
        if self._failures == 0 and self.state == "closed":
            return
        with self._lock:
            self._failures, self._pause = 0, _FIRST_PAUSE
            self._become("closed")

    def failed(self) -> None:
        """Notes an RPC that failed, or a probe."""
        with self._lock:
            self._failures += 1
            if self.state == "half_open" or (self.state == "closed" and self._failures >= _MOST_FAILURES):
                self._until = self._now() + self._pause * (1 + self._chance()) / 2
                self._pause = min(2 * self._pause, _LONGEST_PAUSE)
                self._become("open")

    def due(self) -> bool:
        """Returns whether the server is not asked and the pause is over."""
        return self.state == "open" and self._now() >= self._until

    def probe(self) -> None:
        """Notes that a probe begins: until it has ended, nothing else is asked of the server."""
        with self._lock:
            self._become("half_open")

    def _become(self, state: State) -> None:
        if state != self.state:
            self.state = state
            self._became(state)


class HasBreaker(Protocol):
    """What has a breaker, and whether it is closed for good."""

    breaker: Breaker
    closed: bool
