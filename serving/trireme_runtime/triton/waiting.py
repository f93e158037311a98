"""What an instance knows of the requests that wait for it, from the batches before."""

from __future__ import annotations

import math

__all__ = ["Others", "Waiting"]

#: ns between two batches from which the model was idle: until then, the next one may have been on its way. A full batch is no
#: sign of an idle model, and longer on its way.
IDLE_NS, IDLE_FULL_NS = 2_000_000, 100_000_000
#: ns for which an interactive request counts after it came, at least; at most twice as long.
LATELY_NS = 1_000_000_000


class Waiting:
    """How long requests may have waited for this instance, from the batches before.

    A batch that was not full left nothing behind, so whatever is in the next one came after it was taken; and who comes to an
    idle instance has not waited. (Triton forms a batch or two ahead, so this may be short by as much.) As long as all batches
    are full, the estimate grows; it falls as soon as the queue is empty once.

    Attributes:
        longest: the ns that a request in the last batch may have waited.
    """

    def __init__(self, max_rows: int) -> None:
        self._max_rows = max_rows
        self._since = self._ended = self._next_since = 0
        self.longest = 0

    def taken(self, now: int, rows: int, largest: int) -> None:
        """Notes a batch that was taken: its users, and those of its largest request."""
        full = rows + largest > self._max_rows
        self._since = self._next_since
        if now - self._ended > (IDLE_FULL_NS if full else IDLE_NS):
            self._since = now
        self.longest = now - self._since
        self._next_since = self._since if full else now

    def ended(self, now: int) -> None:
        """Notes that the batch was answered."""
        self._ended = now


class Others:
    """The shortest time that interactive requests have had lately."""

    def __init__(self) -> None:
        self._began = 0
        self._before = self._now = math.inf

    def came(self, now: int, timeout: float) -> None:
        """Notes the shortest time, ns, of those in a batch; infinity if there are none with a limit."""
        self._go_on(now)
        self._now = min(self._now, timeout)

    def shortest(self, now: int) -> float:
        """Returns the ns; infinity if none came lately."""
        self._go_on(now)
        return min(self._before, self._now)

    def _go_on(self, now: int) -> None:
        if now - self._began >= LATELY_NS:
            self._before = self._now if now - self._began < 2 * LATELY_NS else math.inf
            self._began, self._now = now, math.inf
