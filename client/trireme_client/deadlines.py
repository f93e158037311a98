"""The earliest of many moments, each of which may have become void in the meantime."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class HasDeadline(Protocol):
    """What has a deadline: a moment of the clock, infinity for none."""

    deadline: float


T = TypeVar("T", bound=HasDeadline)

# Entries that are kept before the void ones among them are looked for.
_FEWEST = 64


class Deadlines(Generic[T]):
    """The deadlines of calls, earliest first. Void ones are dropped as they come up, or when they are the most.

    Args:
        holds: whether a call's deadline still matters.
    """

    def __init__(self, holds: Callable[[T], bool]) -> None:
        self._holds = holds
        self._heap: list[tuple[float, int, T]] = []
        self._serial = itertools.count()  # calls cannot be compared
        self._full = _FEWEST

    def add(self, call: T) -> None:
        """Adds a call, again after its deadline has changed. One without a deadline is left out."""
        if call.deadline == math.inf:
            return
        heapq.heappush(self._heap, (call.deadline, next(self._serial), call))
        if len(self._heap) > self._full:  # else long deadlines would keep answered calls, and their answers, alive
            self._heap = [entry for entry in self._heap if self._valid(entry)]
            heapq.heapify(self._heap)
            self._full = max(_FEWEST, 2 * len(self._heap))

    def first(self) -> T | None:
        """Returns the call whose deadline is the earliest, None if there is none."""
        while self._heap and not self._valid(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def _valid(self, entry: tuple[float, int, T]) -> bool:
        deadline, _, call = entry
        return deadline == call.deadline and self._holds(call)
