"""What a run of a model takes, from its last runs."""

from __future__ import annotations

import sys
from collections import defaultdict, deque

import numpy as np

__all__ = ["Costs"]

#: Runs that count, and after how many new ones, and ns that they took, the line through them is drawn again: drawing takes as
#: long as a run for a lone user.
KEPT, REDRAWN_AFTER, REDRAWN_AFTER_NS = 32, 8, 20_000_000
#: A run that takes so many times what was expected, or such a part of it, does not wait for that time.
UNLIKE = 2.0
#: Runs of each power of two that count for the slope, however long ago they were: under load, all runs are full ones, which say
#: nothing about smaller ones.
KEPT_BY_SIZE = 4
#: The share of runs that are over in the time that is estimated.
QUANTILE = 0.9
#: What is left of an estimate after a batch that was not run because of it.
DOUBT = 0.98
#: The next run takes the place of those before once their estimate has fallen to this share.
DISCARDED_BELOW = 0.5


class Costs:
    """The ns of a run: a fixed part and one for each user.

    The slope is the median of those between all pairs of runs of different sizes (Theil, 1950; Sen, 1968), which single slow runs
    do not move. The fixed part is such that most of the last runs are over in time.
    """

    def __init__(self) -> None:
        self._last: deque[tuple[int, int]] = deque(maxlen=KEPT)
        self._by_size: dict[int, deque[tuple[int, int]]] = defaultdict(lambda: deque(maxlen=KEPT_BY_SIZE))
        self._new, self._took = 0, REDRAWN_AFTER_NS
        self._line = (0.0, 0.0)
        self._largest = sys.maxsize
        self._share = 1.0

    def add(self, rows: int, ns: int) -> None:
        """Notes a run of ``rows`` users that took ``ns``."""
        if self._share < DISCARDED_BELOW:
            self._last.clear()
            self._by_size.clear()
        self._last.append((rows, ns))
        self._by_size[rows.bit_length()].append((rows, ns))
        self._new += 1
        fixed, slope = self._line
        expected = fixed + slope * min(rows, self._largest)
        # A run that is quite another one: the model, or what else runs beside it, has changed.
        self._took += ns if expected / UNLIKE <= ns <= expected * UNLIKE else REDRAWN_AFTER_NS
        self._share = 1.0

    def doubt(self) -> None:
        """Lowers the estimate until the next run, for a batch that was not run because of it: one that is too high, such as
        after a cold start, would never be put right."""
        self._share *= DOUBT

    def estimate(self, rows: int) -> float:
        """Returns the ns that a run of ``rows`` users will hardly exceed; 0 before the first run."""
        if self._new and (len(self._last) < REDRAWN_AFTER or self._is_old()):
            self._line, self._new, self._took = self._draw(), 0, 0
        fixed, slope = self._line
        return self._share * (fixed + slope * min(rows, self._largest))

    def _is_old(self) -> bool:
        return self._new >= REDRAWN_AFTER and self._took >= REDRAWN_AFTER_NS

    def _draw(self) -> tuple[float, float]:
        rows, ns = np.array(self._last, dtype=np.float64).T
        sizes, took = np.array([run for runs in self._by_size.values() for run in runs], dtype=np.float64).T
        first, second = np.triu_indices(len(sizes), 1)
        apart = sizes[first] != sizes[second]
        if not apart.any():  # all of one size say nothing about the others: the least that those may take
            self._largest = int(rows[0])
            return 0.0, float(np.quantile(ns, QUANTILE) / rows[0])
        self._largest = sys.maxsize
        first, second = first[apart], second[apart]
        slope = max(0.0, float(np.median((took[second] - took[first]) / (sizes[second] - sizes[first]))))
        return max(0.0, float(np.quantile(ns - slope * rows, QUANTILE))), slope
