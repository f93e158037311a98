"""The server's monotonic clock, as learned from its answers. Makes no RPC."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

# Seconds until the clock is asked for again; and after an answer that took so long that it says little.
_AGAIN_AFTER, _SOON = 30.0, 1.0
_GOOD_ROUND_TRIP_NS = 5_000_000

# How far two clocks drift apart, at most: quartz is better than that.
_DRIFT = 1e-4


class Reading(NamedTuple):
    """What one answer says. The server's clock was read between the request and the answer, so their midpoint is off by at
    most half of the round trip.

    Attributes:
        ahead: ns by which the server's clock is ahead of this process's.
        number: the number of the server's clock.
        round_trip: ns.
        at: when the answer came, ns on this process's clock.
    """

    ahead: int
    number: int
    round_trip: int
    at: int

    def error(self, now: int) -> float:
        """Returns the ns by which ``ahead`` may be off at ``now``."""
        return self.round_trip / 2 + _DRIFT * (now - self.at)


class ServerClock:
    """The server's clock. Those of the hosts' calendars do not matter, nor by how much any of them differ.

    Args:
        now: this process's monotonic clock, ns.
    """

    def __init__(self, now: Callable[[], int] = time.monotonic_ns) -> None:
        self.now = now
        self._best: Reading | None = None
        self._ask_at: float | None = None

    def learn(self, asked: int, answered: int, told: int, number: int) -> None:
        """Notes an answer.

        Args:
            asked: when the request left, ns on this process's clock.
            answered: when the answer came.
            told: the server's clock at some moment between.
            number: the number of that clock.
        """
        new = Reading(told - (asked + answered) // 2, number, answered - asked, answered)
        best = self._best
        if best is None or best.number != number or new.error(answered) <= best.error(answered):
            self._best = new
        seconds = _AGAIN_AFTER if self._best and self._best.round_trip <= _GOOD_ROUND_TRIP_NS else _SOON
        self._ask_at = answered + seconds * 1e9

    def missed(self) -> None:
        """Notes that the clock was asked for and no answer came."""
        self._ask_at = self.now() + _SOON * 1e9

    def due(self) -> bool:
        """Returns whether to ask again, once: until that is answered, or for a while, it returns False."""
        now = self.now()
        if self._ask_at is None or now < self._ask_at:
            return False
        self._ask_at = now + _AGAIN_AFTER * 1e9
        return True

    def read(self) -> tuple[int, int] | None:
        """Returns the server's clock now, in ns, and its number; None if the server has not told it."""
        best = self._best
        return None if best is None else (max(0, self.now() + best.ahead), best.number)
