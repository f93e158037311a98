"""feature_transform: from outside ids to rows, history and features of the user."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from trireme_runtime.arrays import lookup, stable_partition
from trireme_runtime.artifacts import load_stage, save_stage
from trireme_runtime.features.freshness import SNAPSHOT
from trireme_runtime.native.tables import Tables
from trireme_runtime.schema import STORED

__all__ = ["FeatureTransform", "Features"]

#: Of the columns of a context, when a bundle has none.
NO_CONTEXT = np.zeros(0, dtype=np.int32)
#: Of the values of a history.
ALLOWED = f"allowed are ids ≥ 0, -1 (padding), and {STORED} in the first place (use the stored history)"


class Features(NamedTuple):
    """user_row int32 [batch, 1], −1 unknown; history_index int32 [batch, L], left-padded with −1, newest
    last; user_category int32 [batch, F], 0 unknown, the last columns are those of the context; user_number float32 [batch, D], 0
    unknown; freshness float32 [batch, 1], the age in seconds of what a feature store holds of the user, SNAPSHOT for the tables
    of the bundle, STALE for those where the store could not be asked."""

    user_row: np.ndarray
    history_index: np.ndarray
    user_category: np.ndarray
    user_number: np.ndarray
    freshness: np.ndarray


class FeatureTransform:
    """Looks ids up and gathers the tables of the user.

    The last row of every table is the unknown user, so that row −1 needs no special case.

    Args:
        user_ids: int64 [users], ascending.
        item_ids: int64 [items], ascending; the position is the item index.
        history: int32 [users + 1, L], the stored history, left-padded with −1, newest last.
        category: int32 [users + 1, F], 0 = unknown.
        number: float32 [users + 1, D − 1], standardised, 0 = unknown. The last number, log1p of the
            history's length, is computed per request.
        context_sizes: int32 [C], number of values of each feature of a request, 0 (unknown) counted. The last C columns of
            ``category`` are theirs.
    """

    name: ClassVar[str] = "feature_transform"

    def __init__(
        self,
        user_ids: np.ndarray,
        item_ids: np.ndarray,
        history: np.ndarray,
        category: np.ndarray,
        number: np.ndarray,
        context_sizes: np.ndarray = NO_CONTEXT,
    ) -> None:
        self.user_ids = user_ids
        self.item_ids = item_ids
        self.history = history
        self.category = category
        self.number = number
        self.context_sizes = context_sizes

    @staticmethod
    def invalid_rows(
        user_id: np.ndarray, history: np.ndarray | None = None, context: np.ndarray | None = None
    ) -> dict[int, str]:
        """What is wrong with a request, by row; unknown users, items and values of the context are not wrong."""
        if history is None and context is None and user_id.min(initial=0) >= -1:
            return {}  # nearly always
        problems = {
            int(row): f"user_id is {user_id[row, 0]}, allowed are ids ≥ 0 and -1 (anonymous)"
            for row in np.flatnonzero(user_id[:, 0] < -1)
        }
        if history is not None and (given := _given(history)).size:
            for row in given[(history[given] < -1).any(axis=1)]:
                column = int(np.argmax(history[row] < -1))
                problems.setdefault(int(row), f"history[{column}] is {history[row, column]}, {ALLOWED}")
        if context is not None:
            for row, column in zip(*np.nonzero(context < 0), strict=True):
                wrong = (
                    f"context[{column}] is {context[row, column]}, allowed are 0 (unknown) and the indices of values"
                )
                problems.setdefault(int(row), wrong)
        return problems

    def __call__(
        self, user_id: np.ndarray, history: np.ndarray | None = None, context: np.ndarray | None = None
    ) -> Features:
        """Args: user_id int64 [batch, 1]; history int64 [batch, L]; context int32 [batch, C], see ``put_context``. The stored
        history is used for rows that begin with STORED, and for all of them if there is no ``history``."""
        row = lookup(self.user_ids, user_id[:, 0])
        index = self.history[row]
        if history is not None and (given := _given(history)).size:
            index[given] = self._align(lookup(self.item_ids, history[given]))
        length = (index >= 0).sum(axis=1, keepdims=True)
        number = np.concatenate([self.number[row], np.log1p(length, dtype=np.float32)], axis=1)
        freshness = np.full((len(row), 1), SNAPSHOT, np.float32)
        category = self.category[row]
        self.put_context(category, context)
        return Features(row[:, None], index, category, number, freshness)

    def put_context(self, category: np.ndarray, context: np.ndarray | None) -> None:
        """Writes ``context`` (int32 [batch, C]) into the columns of ``category`` that are its own. An index that this bundle does
        not have is unknown: the caller may still read the values of another."""
        if context is not None and self.context_sizes.size:
            known = (context >= 0) & (context < self.context_sizes)
            category[:, -self.context_sizes.size :] = np.where(known, context, 0)

    @staticmethod
    def _align(index: np.ndarray) -> np.ndarray:
        """Drops padding and unknown items: known ones move to the right, in their order."""
        return np.take_along_axis(index, stable_partition(index < 0, index.shape[1]), axis=1)

    def tables(self) -> Tables:
        """What the compiled form reads."""
        return {
            "user_ids": self.user_ids,
            "item_ids": self.item_ids,
            "history": self.history,
            "category": self.category,
            "number": self.number,
            "context_sizes": self.context_sizes,
            "users": self.user_ids.size,
            "items": self.item_ids.size,
            "length": self.history.shape[1],
            "categories": self.category.shape[1],
            "numbers": self.number.shape[1] + 1,
            "contexts": self.context_sizes.size,
        }

    def save(self, path: Path) -> None:
        arrays = ["user_ids", "item_ids", "history", "category", "number"]
        if self.context_sizes.size:
            arrays.append("context_sizes")
        save_stage(path, self.name, {name: getattr(self, name) for name in arrays})

    @classmethod
    def load(cls, path: Path) -> FeatureTransform:
        arrays, _ = load_stage(path, cls.name)
        return cls(**arrays)


def _given(history: np.ndarray) -> np.ndarray:
    """The rows of ``history`` (int64 [batch, L]) that replace the stored one: int64 [n]."""
    return np.flatnonzero(history[:, 0] != STORED)
