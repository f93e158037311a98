"""Users to evaluate, and what counts as right. Index space only: it knows no files and no models.

Users are evaluated if they occur in training and have relevant items: items of their test interactions that occur in
training and are not in their own training history. Items of that history never count and must not be recommended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from trireme_export.data.histories import csr, row_offsets
from trireme_runtime.arrays import ragged_rows

__all__ = ["EvaluationSet", "build_evaluation"]


@dataclass(frozen=True)
class EvaluationSet:
    """E users to evaluate, each with a past and with the items that are right for them."""

    user_id: np.ndarray
    """int64 [E], external, ascending."""
    user_row: np.ndarray
    """int32 [E]; −1 for a user that the bundle does not know."""
    history_offsets: np.ndarray
    """int64 [E + 1]."""
    history_items: np.ndarray
    """int32 [history_offsets[-1]], item indices, oldest first, repeats kept. All of them are excluded from lists."""
    relevant_offsets: np.ndarray
    """int64 [E + 1], strictly rising: every user has a relevant item."""
    relevant_items: np.ndarray
    """int32 [relevant_offsets[-1]], item indices, ascending and distinct per user."""

    @property
    def n_users(self) -> int:
        """E."""
        return int(self.user_id.size)

    @property
    def relevant_count(self) -> np.ndarray:
        """int64 [E], at least 1."""
        return np.diff(self.relevant_offsets)

    def chunks(self, size: int) -> Iterator[np.ndarray]:
        """Yields the positions of the users, int64, at most ``size`` at a time."""
        for start in range(0, self.n_users, size):
            yield np.arange(start, min(start + size, self.n_users))

    def anonymous(self) -> EvaluationSet:
        """Returns the same users as ones that the bundle does not know: they are asked for by their history alone."""
        return replace(self, user_row=np.full_like(self.user_row, -1))

    def take(self, rows: np.ndarray) -> EvaluationSet:
        """Returns only the users at positions ``rows`` (int [e])."""
        history, history_items = ragged_rows(self.history_offsets, self.history_items, rows)
        relevant, relevant_items = ragged_rows(self.relevant_offsets, self.relevant_items, rows)
        return EvaluationSet(
            self.user_id[rows],
            self.user_row[rows],
            row_offsets(history, rows.size),
            history_items,
            row_offsets(relevant, rows.size),
            relevant_items,
        )


def build_evaluation(
    user_id: np.ndarray,
    user_row: np.ndarray,
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    catalogue_size: int,
) -> EvaluationSet:
    """Applies the protocol.

    Args:
        user_id: int64 [n], ascending, the users that may be evaluated.
        user_row: int32 [n], their rows in the bundle, −1 where unknown.
        train: ``(position in user_id int [p], item index int [p])`` of training positives, in ascending time.
        test: the same of test positives; a position or an item index of −1 (not in training) never counts.
        catalogue_size: N.

    Returns:
        The users with at least one training positive and one relevant item.
    """
    history_user, history_item = train
    history_offsets, history_items = csr(history_user, history_item, user_id.size)
    known = (test[0] >= 0) & (test[1] >= 0)
    pair = np.unique(test[0][known].astype(np.int64) * catalogue_size + test[1][known])
    seen = np.unique(history_user.astype(np.int64) * catalogue_size + history_item)
    pair = np.setdiff1d(pair, seen, assume_unique=True)
    relevant_offsets = row_offsets(pair // catalogue_size, user_id.size)
    everyone = EvaluationSet(
        user_id, user_row, history_offsets, history_items, relevant_offsets, (pair % catalogue_size).astype(np.int32)
    )
    asked = (np.diff(history_offsets) > 0) & (np.diff(relevant_offsets) > 0)
    return everyone.take(np.flatnonzero(asked))
