"""Who asks: real users in an order that no cache of answers profits from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["UserMix"]


class UserMix:
    """Users drawn without replacement, and shuffled again after each has had a turn.

    Args:
        user_ids: int64 (users,), real users.
        rng: where the order comes from.
    """

    def __init__(self, user_ids: NDArray[np.int64], rng: np.random.Generator) -> None:
        self._user_ids = user_ids
        self._rng = rng
        self._waiting: list[int] = []

    def take(self, count: int) -> list[int]:
        """Returns the next ``count`` users."""
        while len(self._waiting) < count:
            self._waiting += self._rng.permutation(self._user_ids).tolist()
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken
