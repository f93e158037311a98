"""The data set that everything after it works on: indices instead of ids, features as arrays, the split made.

It knows nothing of files; ``build`` makes it from them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from trireme_export.data.context import NO_CONTEXT, Context
from trireme_export.data.evaluation_set import EvaluationSet
from trireme_export.data.features import FeatureTable
from trireme_export.data.histories import csr, distinct_pairs
from trireme_export.data.report import DataReport
from trireme_export.data.training_data import TrainingData

__all__ = ["Dataset"]


@dataclass(frozen=True)
class Dataset:
    """A data set ready for training and evaluation. N items, U users, P training positives."""

    name: str
    item_ids: np.ndarray
    """int64 [N], ascending: the items with a training positive. Item index = position here."""
    user_ids: np.ndarray
    """int64 [U], ascending: users with a training positive or a row in users.parquet. User row = position here."""
    train_offsets: np.ndarray
    """int64 [U + 1]."""
    train_items: np.ndarray
    """int32 [P], item indices, oldest first within a user, repeats kept."""
    train_times: np.ndarray
    """int64 [P], rising within a user; equal for what was taken at once."""
    test_offsets: np.ndarray
    """int64 [U + 1]."""
    test_items: np.ndarray
    """int32 [test_offsets[-1]]: what the users took in the test part, of items that training knows; as ``train_items``."""
    test_times: np.ndarray
    """int64 [test_offsets[-1]], as ``train_times``."""
    shared_clock: bool
    """Whether the test is the end of the time of all users; otherwise it is the end of each user's own."""
    users: FeatureTable
    """U rows, at least one category column."""
    items: FeatureTable
    """N rows."""
    segment: int
    """Column of ``users.category`` whose values have popular lists of their own."""
    item_titles: tuple[str, ...]
    """N names for people, empty where there is none."""
    item_popularity: np.ndarray
    """int64 [N], distinct training users."""
    test: EvaluationSet
    """Users of training."""
    holdout: EvaluationSet | None
    """Users kept out of training, to be served by their history alone; None unless asked for."""
    report: DataReport
    train_context: Context = NO_CONTEXT
    """Of the P training positives."""
    test_context: Context = NO_CONTEXT
    """Of ``test_items``."""

    @property
    def catalogue_size(self) -> int:
        """N."""
        return int(self.item_ids.size)

    @property
    def n_users(self) -> int:
        """U."""
        return int(self.user_ids.size)

    def segment_popularity(self) -> Iterator[np.ndarray]:
        """Yields the distinct training users of each item, int64 [N], for one segment after the other; segment 0 is unknown."""
        row = np.repeat(np.arange(self.n_users), np.diff(self.train_offsets))
        user, item = distinct_pairs(row, self.train_items, self.catalogue_size)
        offsets, grouped = csr(self.users.category[user, self.segment], item, self.users.category_sizes[self.segment])
        for start, stop in pairwise(offsets):
            yield np.bincount(grouped[start:stop], minlength=self.catalogue_size)

    def training_data(self) -> TrainingData:
        """Returns what the models are trained on."""
        return TrainingData(
            catalogue_size=self.catalogue_size,
            user_offsets=self.train_offsets,
            user_items=self.train_items,
            user_times=self.train_times,
            shared_clock=self.shared_clock,
            user_category=self.users.category,
            user_category_sizes=self.users.category_sizes,
            user_number=self.users.number,
            item_category=self.items.category,
            item_category_sizes=self.items.category_sizes,
            item_number=self.items.number,
            item_lists=self.items.lists,
            context=self.train_context.index,
            context_sizes=self.train_context.sizes,
        )
