"""Popularity of the newest interactions: one list for all users, made of what is popular now.

Ji, Sun, Zhang and Li, "A Re-visit of the Popularity Baseline in Recommender Systems", SIGIR 2020.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from trireme_export.evaluation.baselines.method import Method
from trireme_export.evaluation.baselines.positives import Positives

__all__ = ["RECENT_POPULARITY", "RecentPopularity"]


class RecentPopularity:
    """The distinct users of each item among the newest ``share`` of the positives."""

    def __init__(self, positives: Positives, share: float) -> None:
        self._users = np.asarray(positives.newest(share).matrix.sum(axis=0), dtype=np.float64).ravel()

    def score(self, histories: sparse.csr_matrix) -> np.ndarray:
        return np.broadcast_to(self._users, histories.shape)


def _refusal(positives: Positives) -> str | None:
    return None if positives.shared_clock else "there is no clock common to all users"


RECENT_POPULARITY = Method(
    "recent_popularity",
    RecentPopularity,
    tuple({"share": share} for share in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)),
    _refusal,
)
