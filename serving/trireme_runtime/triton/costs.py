"""What a run of a model takes, from its last runs."""

from __future__ import annotations

from collections import deque

import numpy as np

__all__ = ["Costs"]

#: Runs that count, and after how many new ones the line through them is drawn again.
KEPT, REDRAWN_AFTER = 32, 8
#: The share of runs that are over in the time that is estimated.
QUANTILE = 0.9
#: What is left of an estimate after a batch that was not run because of it.
DOUBT = 0.98
#: The next run takes the place of those before once their estimate has fallen to this share.
DISCARDED_BELOW = 0.5


class Costs:
    """The ns of a run: a fixed part and one for each user.

    The slope is the median of those between all pairs of runs (Theil, 1950; Sen, 1968), which single slow runs do not move. The
    fixed part is such that most runs are over in time.
    """

    def __init__(self) -> None:
        self._runs: deque[tuple[int, int]] = deque(maxlen=KEPT)
        self._new = 0
        self._line = (0.0, 0.0)
        self._share = 1.0

    def add(self, rows: int, ns: int) -> None:
        """Notes a run of ``rows`` users that took ``ns``."""
        if self._share < DISCARDED_BELOW:
            self._runs.clear()
        self._runs.append((rows, ns))
        self._new += 1
        self._share = 1.0

    def doubt(self) -> None:
        """Lowers the estimate until the next run, for a batch that was not run because of it: one that is too high, such as
        after a cold start, would never be put right."""
        self._share *= DOUBT

    def estimate(self, rows: int) -> float:
        """Returns the ns that a run of ``rows`` users will hardly exceed; 0 before the first run."""
        if self._new and (self._new >= REDRAWN_AFTER or len(self._runs) < REDRAWN_AFTER):
            self._line, self._new = self._draw(), 0
        fixed, slope = self._line
        return self._share * (fixed + slope * rows)

    def _draw(self) -> tuple[float, float]:
        rows, ns = np.array(self._runs, dtype=np.float64).T
        first, second = np.triu_indices(len(rows), 1)
        apart = rows[first] != rows[second]
        if not apart.any():  # all of one size say nothing about the fixed part
            return 0.0, float(np.quantile(ns, QUANTILE) / rows[0])
        first, second = first[apart], second[apart]
        slope = max(0.0, float(np.median((ns[second] - ns[first]) / (rows[second] - rows[first]))))
        return max(0.0, float(np.quantile(ns - slope * rows, QUANTILE))), slope
