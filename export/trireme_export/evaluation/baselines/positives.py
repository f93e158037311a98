"""What baselines are fitted on: the training positives, and their own split into an older and a newer part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy import sparse

from trireme_export.data.dataset import Dataset
from trireme_export.data.evaluation_set import EvaluationSet, build_evaluation
from trireme_export.data.histories import csr, distinct_pairs
from trireme_export.data.split import SplitBy, test_mask
from trireme_runtime.arrays import ragged_rows

__all__ = ["Positives", "histories"]

#: Share of the training positives that settings are chosen on, split off like the test.
VALIDATION = 0.1
#: Counts of shared users that are held at a time.
SHARED = 1 << 24


@dataclass(frozen=True)
class Positives:
    """P positives of U users and N items, in ascending time within each user."""

    user: np.ndarray
    """int64 [P], rows of users."""
    item: np.ndarray
    """int32 [P], item indices."""
    times: np.ndarray
    """int64 [P], rising within a user."""
    shared_clock: bool
    """Whether the test is the end of the time of all users; otherwise it is the end of each user's own."""
    n_users: int
    """U."""
    catalogue_size: int
    """N."""

    @classmethod
    def of(cls, dataset: Dataset) -> Positives:
        """Returns the training part of a data set."""
        user = np.repeat(np.arange(dataset.n_users), np.diff(dataset.train_offsets))
        return cls(
            user,
            dataset.train_items,
            dataset.train_times,
            dataset.shared_clock,
            dataset.n_users,
            dataset.catalogue_size,
        )

    @cached_property
    def matrix(self) -> sparse.csr_matrix:
        """float32 [U, N], 1 for each distinct pair of user and item."""
        return _binary(*distinct_pairs(self.user, self.item, self.catalogue_size), (self.n_users, self.catalogue_size))

    def shared(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields some items after others, with the users whom each shares with every item: their slice, float32 [b, N]."""
        users_of = self.matrix.T.tocsr()
        step = max(1, SHARED // self.catalogue_size)
        for low in range(0, self.catalogue_size, step):
            part = slice(low, min(low + step, self.catalogue_size))
            yield part, (users_of[part] @ self.matrix).toarray()

    def newest(self, share: float) -> Positives:
        """Returns the newest ``share`` of all positives on the clock, at least one.

        Raises:
            ValueError: there is no common clock.
        """
        if not self.shared_clock:
            raise ValueError("shared_clock is False: which positives are the newest is known only on a common clock")
        order = np.argsort(self.times, kind="stable")
        return self._take(order[-max(1, round(share * order.size)) :])

    def split(self) -> tuple[Positives, EvaluationSet]:
        """Returns the older part, and users to evaluate on the newer part by the protocol of the test."""
        order = np.argsort(self.times, kind="stable")
        newer = np.zeros(order.size, dtype=bool)
        by: SplitBy = "time" if self.shared_clock else "user"
        newer[order] = test_mask(self.user[order], self.times[order], VALIDATION, by)
        older = self._take(np.flatnonzero(~newer))
        known = np.bincount(older.item, minlength=self.catalogue_size) > 0
        item = np.where(known[self.item[newer]], self.item[newer], -1)
        rows = np.arange(self.n_users)
        train = older.user, older.item
        return older, build_evaluation(
            rows, rows.astype(np.int32), train, (self.user[newer], item), self.catalogue_size
        )

    def _take(self, position: np.ndarray) -> Positives:
        user, item, times = self.user[position], self.item[position], self.times[position]
        return replace(self, user=user, item=item, times=times)


def histories(evaluation: EvaluationSet, rows: np.ndarray, catalogue_size: int) -> sparse.csr_matrix:
    """Returns the distinct items of the histories of the users at positions ``rows`` (int [b]): float32 [b, N] of 1."""
    user, item = ragged_rows(evaluation.history_offsets, evaluation.history_items, rows)
    return _binary(*distinct_pairs(user, item, catalogue_size), (rows.size, catalogue_size))


def _binary(row: np.ndarray, column: np.ndarray, shape: tuple[int, int]) -> sparse.csr_matrix:
    offsets, columns = csr(row, column, shape[0])
    return sparse.csr_matrix((np.ones(columns.size, dtype=np.float32), columns, offsets), shape=shape)
