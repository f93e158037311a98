"""How long to wait before something that died is started again."""

from __future__ import annotations

import time
from collections.abc import Callable

LONGEST_S = 30.0
#: What has lived for so long has not died of its start: the next death is a first one again.
STABLE_S = 60.0
#: So many deaths, none after ``STABLE_S``: more tries will hardly help, and cost what still works.
LOOP = 5


class Backoff:
    """Counts deaths. The first is answered at once, the next ones after 1, 2, 4 … s, and those in a crash loop every 30 s.

    Args:
        clock: seconds, rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started: float | None = None
        self.deaths = 0

    def started(self) -> None:
        """To be called when it has come up."""
        self._started = self._clock()

    def died(self) -> float:
        """To be called for each death, and for each start that failed; returns how many seconds to wait."""
        if self.lived_s >= STABLE_S:
            self.deaths = 0
        self.deaths += 1
        self._started = None
        if self.is_loop:
            return LONGEST_S
        return 0.0 if self.deaths == 1 else min(2.0 ** (self.deaths - 2), LONGEST_S)

    @property
    def is_loop(self) -> bool:
        """Whether it died again and again."""
        return self.deaths >= LOOP

    @property
    def lived_s(self) -> float:
        """Seconds since it came up; 0 if it has not."""
        return 0.0 if self._started is None else self._clock() - self._started
