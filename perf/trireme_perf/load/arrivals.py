"""Who asks and when: a cold mix of users and the moments of an open-loop Poisson process."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["UserMix", "poisson_arrivals"]


def poisson_arrivals(rate: float, seconds: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Moments of arrival in seconds from the start, rising, float64 (requests,).

    Conditional on how many there are, the arrivals of a Poisson process are independent and uniform over the time
    (Ross, Stochastic Processes, 2nd ed., theorem 2.3.1). The count is set to ``rate * seconds``, so that every
    contestant is offered exactly the rate that its figure names, and only the moments are random.
    """
    count = max(1, round(rate * seconds))
    return np.sort(rng.uniform(0.0, seconds, count))


class UserMix:
    """Users drawn without replacement; shuffled anew when all have had their turn, so that no cache of answers helps.

    Args:
        user_ids: int64 (users,), real users.
        rng: where the order comes from.
    """

    def __init__(self, user_ids: NDArray[np.int64], rng: np.random.Generator) -> None:
        self._user_ids = user_ids
        self._rng = rng
        self._waiting: list[int] = []

    def take(self, count: int) -> list[int]:
        """The next ``count`` users."""
        while len(self._waiting) < count:
            self._waiting += self._rng.permutation(self._user_ids).tolist()
        taken, self._waiting = self._waiting[:count], self._waiting[count:]
        return taken
