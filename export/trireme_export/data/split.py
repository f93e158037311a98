"""Which interactions are the test: the last part in time. It knows arrays only.

Shares are exact fractions: 10 % of 30 is 3, although 0.1 has no exact binary form.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np

__all__ = ["SplitBy", "draw_holdout", "test_mask"]

SplitBy = Literal["time", "user"]


def test_mask(user_id: np.ndarray, fraction: float, by: SplitBy) -> np.ndarray:
    """Chooses the interactions to test on.

    Args:
        user_id: int64 [n], of interactions in ascending time.
        fraction: share of interactions, in (0, 1).
        by: ``time``: the last ``floor(fraction · n)`` of all interactions (one clock for all users).
            ``user``: the last ``ceil(fraction · n_u)`` of each user (an order, but no clock).

    Returns:
        bool [n].
    """
    share = Fraction(str(fraction))
    if by == "time":
        n_test = user_id.size * share.numerator // share.denominator
        return np.arange(user_id.size) >= user_id.size - n_test
    order = np.argsort(user_id, kind="stable")
    _, first, count = np.unique(user_id[order], return_index=True, return_counts=True)
    n_test = -(-count * share.numerator // share.denominator)
    rank = np.arange(user_id.size) - np.repeat(first, count)
    mask = np.zeros(user_id.size, dtype=bool)
    mask[order] = rank >= np.repeat(count - n_test, count)
    return mask


test_mask.__test__ = False  # type: ignore[attr-defined]  # pytest collects by name


def draw_holdout(user_id: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Draws the users kept out of training: ``round(share · users)`` of the distinct ``user_id``, ascending int64 [h]."""
    users = np.unique(user_id)
    return np.sort(rng.choice(users, size=round(share * users.size), replace=False))
