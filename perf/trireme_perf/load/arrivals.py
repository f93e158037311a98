"""Who asks and when: a cold mix of users and the moments of an open-loop Poisson process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trireme_perf.errors import PerfError

__all__ = ["UserMix", "poisson_arrivals", "read_users"]

PERF_INPUT = "perf_input.json"


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


def read_users(repository: Path) -> NDArray[np.int64]:
    """The real users of a repository's input file for perf_analyzer, int64 (users,), each once.

    Raises:
        PerfError: no such file, or no users in it.
    """
    file = repository / PERF_INPUT
    try:
        users = [entry["user_id"][0] for entry in json.loads(file.read_text())["data"]]
    except OSError as error:
        raise PerfError(f"{file}: cannot be read ({error.strerror}); `trireme export` writes it") from None
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise PerfError(f"{file}: is not an input file of users ({type(error).__name__}: {error})") from None
    if not users:
        raise PerfError(f"{file}: holds no users; at least 1 is needed")
    return np.unique(np.array(users, dtype=np.int64))
