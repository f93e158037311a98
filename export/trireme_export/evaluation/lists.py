"""Lists of popular items, and the exact top of given scores. Equal scores rank by ascending item index."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from trireme_export.data.evaluation_set import EvaluationSet
from trireme_export.evaluation.metrics import LONGEST, evaluate_lists
from trireme_runtime.arrays import contains, ragged_rows

__all__ = ["evaluate_popularity", "popular_order", "popularity_lists", "score_lists"]

CHUNK = 512


def popular_order(popularity: np.ndarray) -> np.ndarray:
    """Returns item indices int32 [N] by falling ``popularity`` (any number [N]), ties by ascending index."""
    return np.argsort(-np.asarray(popularity, dtype=np.float64), kind="stable").astype(np.int32)


def popularity_lists(popularity: np.ndarray, evaluation: EvaluationSet, k: int) -> np.ndarray:
    """Returns the k most popular items that are not in each user's history.

    Args:
        popularity: [N], here the number of distinct training users of each item.
        evaluation: E users.
        k: length of a list.

    Returns:
        int32 [E, k], −1 where the catalogue runs out.
    """
    order = popular_order(popularity)
    ranked = np.full((evaluation.n_users, k), -1, dtype=np.int32)
    longest = int(np.diff(evaluation.history_offsets).max(initial=0))
    asked = np.tile(order[: k + longest], (CHUNK, 1))  # a history takes no more places from a list than it has items
    for rows in evaluation.chunks(CHUNK):
        user, item = ragged_rows(evaluation.history_offsets, evaluation.history_items, rows)
        free = ~contains(user, item, asked[: rows.size], order.size)
        place = np.cumsum(free, axis=1) - 1
        user, column = np.nonzero(free & (place < k))
        ranked[rows[user], place[user, column]] = order[column]
    return ranked


def score_lists(
    score: Callable[[np.ndarray], np.ndarray], evaluation: EvaluationSet, catalogue_size: int, k: int
) -> np.ndarray:
    """Returns the k best-scored items that are not in each user's history.

    Args:
        score: positions in ``evaluation`` int64 [b] to scores [b, N]; called on chunks. NaN ranks last,
            −inf is not recommended.
        evaluation: E users.
        catalogue_size: N.
        k: length of a list.

    Returns:
        int32 [E, k], −1 where the catalogue runs out.
    """
    ranked = np.full((evaluation.n_users, k), -1, dtype=np.int32)
    for rows in evaluation.chunks(CHUNK):
        values = -np.array(score(rows), dtype=np.float64)
        values[np.isnan(values)] = np.finfo(np.float64).max
        values[_history_mask(evaluation, rows, catalogue_size)] = np.inf
        row, column, place = _best(values, k)
        ranked[rows[row], place] = column
    return ranked


def evaluate_popularity(popularity: np.ndarray, evaluation: EvaluationSet, longest: int = LONGEST) -> dict[str, float]:
    """Returns the metrics of one popular list for all users, without what each has already.

    For ``longest`` see ``mean_metrics``.
    """
    return evaluate_lists(popularity_lists(popularity, evaluation, min(LONGEST, longest)), evaluation, longest)


def _history_mask(evaluation: EvaluationSet, rows: np.ndarray, catalogue_size: int) -> np.ndarray:
    """Marks the items of each user's history: bool [b, N]."""
    user, item = ragged_rows(evaluation.history_offsets, evaluation.history_items, rows)
    mask = np.zeros((rows.size, catalogue_size), dtype=bool)
    mask[user, item] = True
    return mask


def _best(values: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns row, column and place of the k smallest entries of each row below +inf (float64 [b, N]), ties by column.

    Only what is not above a row's k-th smallest is sorted.
    """
    kth = np.partition(values, k - 1, axis=1)[:, k - 1 : k] if k < values.shape[1] else np.inf
    row, column = np.nonzero((values <= kth) & (values < np.inf))
    order = np.lexsort((values[row, column], row))
    row, column = row[order], column[order]
    place = np.arange(row.size) - np.searchsorted(row, row)
    kept = place < k
    return row[kept], column[kept], place[kept]
