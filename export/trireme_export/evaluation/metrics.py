"""How good ranked lists are. Array functions in float64 that know neither models nor files.

Every metric is computed per user and averaged over users. Its best possible value is 1 for every user: the
denominators count ``min(k, relevant)`` items.
"""

from __future__ import annotations

import numpy as np

from trireme_export.data.evaluation_set import EvaluationSet
from trireme_runtime.arrays import contains

__all__ = ["METRICS", "evaluate_lists", "hits", "mean_metrics", "ndcg_at_k", "recall_at_k", "user_metrics"]

METRICS = ("ndcg@10", "recall@20", "recall@200")
#: Places that the last of them looks at.
LONGEST = 200


def hits(ranked: np.ndarray, offsets: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Marks the ranked items that are relevant.

    Args:
        ranked: int [users, K], item indices, best first; −1 is padding and never a hit.
        offsets: int64 [users + 1].
        relevant: int [offsets[-1]], item indices per user.

    Returns:
        bool [users, K].

    Raises:
        ValueError: wrong shape, or an item that a list holds twice (it would count twice).
    """
    if ranked.ndim != 2 or ranked.shape[0] != offsets.size - 1:
        raise ValueError(f"ranked has shape {ranked.shape}, needs ({offsets.size - 1} users, K)")
    if ranked.size and ranked.min() < -1:
        raise ValueError(f"ranked holds {ranked.min()}; item indices are >= 0 and -1 is padding")
    ordered = np.sort(ranked, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    if twice.any():
        row, column = np.argwhere(twice)[0]
        raise ValueError(f"the list of user {row} holds item {ordered[row, column]} twice")
    size = int(max(ranked.max(initial=0), relevant.max(initial=0))) + 1
    user = np.repeat(np.arange(offsets.size - 1), np.diff(offsets))
    return contains(user, relevant, ranked, size)


def ndcg_at_k(hit: np.ndarray, relevant_count: np.ndarray, k: int) -> np.ndarray:
    """Returns the normalised discounted cumulative gain with binary relevance (Järvelin and Kekäläinen 2002).

    A hit at rank r (from 1) counts ``1 / log2(r + 1)``; the sum is divided by that of the best list, which has
    ``min(k, relevant)`` hits in front.

    Args:
        hit: bool [users, K].
        relevant_count: int [users], at least 1.
        k: length of the list that counts.

    Returns:
        float64 [users].
    """
    discount = 1.0 / np.log2(np.arange(2, k + 2, dtype=np.float64))
    gain = hit[:, :k].astype(np.float64) @ discount[: hit.shape[1]]
    return gain / np.cumsum(discount)[np.minimum(_checked(relevant_count), k) - 1]


def recall_at_k(hit: np.ndarray, relevant_count: np.ndarray, k: int) -> np.ndarray:
    """Returns the hits among the first k, divided by ``min(k, relevant)``.

    Args:
        hit: bool [users, K].
        relevant_count: int [users], at least 1.
        k: length of the list that counts.

    Returns:
        float64 [users].
    """
    return hit[:, :k].sum(axis=1, dtype=np.float64) / np.minimum(_checked(relevant_count), k)


def evaluate_lists(ranked: np.ndarray, evaluation: EvaluationSet, longest: int = LONGEST) -> dict[str, float]:
    """Returns the means of ``METRICS`` over users. A list shorter than k counts as misses in the places it lacks.

    Args:
        ranked: int [E, K], item indices, best first, −1 padding, in the order of ``evaluation``'s users.
        evaluation: the users and their relevant items.
        longest: see ``mean_metrics``.

    Raises:
        ValueError: ``ranked`` does not fit (see ``hits``), or there are no users to evaluate.
    """
    if evaluation.n_users == 0:
        raise ValueError("no users to evaluate: none has both training history and relevant test items")
    hit = hits(ranked, evaluation.relevant_offsets, evaluation.relevant_items)
    return mean_metrics(hit, evaluation.relevant_count, longest)


def mean_metrics(hit: np.ndarray, relevant_count: np.ndarray, longest: int = LONGEST) -> dict[str, float]:
    """Returns the means over users of what ``user_metrics`` returns."""
    return {name: float(value.mean()) for name, value in user_metrics(hit, relevant_count, longest).items()}


def user_metrics(hit: np.ndarray, relevant_count: np.ndarray, longest: int = LONGEST) -> dict[str, np.ndarray]:
    """Returns ``METRICS`` of each user, float64 [users], given ``hit`` (bool [users, K]) and ``relevant_count`` (int [users]).

    No metric looks at more than ``longest`` places: where that is 40, there is recall@40 for recall@200.
    """
    values = {f"ndcg@{k}": ndcg_at_k(hit, relevant_count, k) for k in [min(10, longest)]}
    return values | {
        f"recall@{k}": recall_at_k(hit, relevant_count, k) for k in (min(20, longest), min(LONGEST, longest))
    }


def _checked(relevant_count: np.ndarray) -> np.ndarray:
    if relevant_count.size and relevant_count.min() < 1:
        raise ValueError("a user without relevant items cannot be evaluated")
    return relevant_count
