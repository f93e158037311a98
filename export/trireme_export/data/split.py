"""Which interactions are the test: the last part in time. It knows arrays only.

Shares are exact fractions: 10 % of 30 is 3, although 0.1 has no exact binary form.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np

__all__ = ["SplitBy", "draw_holdout", "most_tested", "test_mask"]

SplitBy = Literal["time", "user"]


def most_tested(n: int, fraction: float) -> int:
    """Returns ``floor(fraction · n)``, the most of n interactions that a test by time may hold."""
    return int(Fraction(str(fraction)) * n)


def test_mask(user_id: np.ndarray, time: np.ndarray, fraction: float, by: SplitBy) -> np.ndarray:
    """Chooses the interactions to test on. Those of a user at one time, such as a basket, are never torn apart.

    Args:
        user_id: int64 [n], n >= 1.
        time: int64 [n], ascending.
        fraction: share of interactions, in (0, 1).
        by: ``time``: one clock for all users. The test begins at the first time from which it holds at most
            ``most_tested`` interactions; none, where more than that share the last time.
            ``user``: an order, but no clock. The test holds the last times of each user, as many as bring its size
            nearest to ``ceil(fraction · n_u)``, or the fewer of two as near; at least one time, and never the first.
            Users whose interactions share one time have no test.

    Returns:
        bool [n].
    """
    if by == "user":
        return _end_of_each(user_id, time, Fraction(str(fraction)))
    last_trained = time[time.size - most_tested(time.size, fraction) - 1]
    return time > last_trained


test_mask.__test__ = False  # type: ignore[attr-defined]  # pytest collects by name


def draw_holdout(user_id: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draws the users kept out of training: ``round(share · users)`` of the distinct ``user_id``, ascending int64 [h]."""
    users = np.unique(user_id)
    return np.sort(rng.choice(users, size=round(share * users.size), replace=False))


def _end_of_each(user_id: np.ndarray, time: np.ndarray, share: Fraction) -> np.ndarray:
    order = np.argsort(user_id, kind="stable")
    starts_user = np.diff(user_id[order], prepend=user_id[order[0]] - 1) != 0
    starts_time = np.diff(time[order], prepend=time[:1]) != 0
    first = np.flatnonzero(starts_user)
    stop = np.append(first[1:], user_id.size)
    wanted = -(-(stop - first) * share.numerator // share.denominator)
    place = np.flatnonzero(starts_time & ~starts_user)  # where a test can begin
    user = np.cumsum(starts_user)[place] - 1
    size = stop[user] - place
    nearest = np.lexsort((size, np.abs(size - wanted[user]), user))
    tested, best = np.unique(user[nearest], return_index=True)
    begin = stop.copy()
    begin[tested] = place[nearest[best]]
    mask = np.zeros(user_id.size, dtype=bool)
    mask[order] = np.arange(user_id.size) >= np.repeat(begin, stop - first)
    return mask
