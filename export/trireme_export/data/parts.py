"""The parts of a data set: what is trained on, what is tested on, and users held out of training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trireme_export.data.errors import DataValueError
from trireme_export.data.options import DataConfig
from trireme_export.data.reader import Interactions
from trireme_export.data.split import SplitBy, draw_holdout, test_mask

__all__ = ["Parts", "split_positives"]


@dataclass(frozen=True)
class Parts:
    """Positives in ascending time, and the part of each. A row in no part is not used."""

    user_id: np.ndarray
    item_id: np.ndarray
    time: np.ndarray
    train: np.ndarray
    """bool [n], of known users."""
    test: np.ndarray
    """bool [n], of known users."""
    past: np.ndarray
    """bool [n], of users held out: their history when served."""
    future: np.ndarray
    """bool [n], of users held out: their test."""
    held_users: np.ndarray
    """int64 [h], ascending."""


def split_positives(directory: Path, interactions: Interactions, config: DataConfig, by: SplitBy) -> Parts:
    """Splits the positives of ``interactions``; the test is their last part.

    Raises:
        DataValueError: nothing is left to train on.
    """
    positive = interactions.positive
    user_id, item_id = interactions.user_id[positive], interactions.item_id[positive]
    test = test_mask(user_id, config.test_fraction, by)
    held_users = draw_holdout(user_id[~test], config.holdout_users, np.random.default_rng(config.holdout_seed))
    held = np.isin(user_id, held_users)
    train = ~test & ~held
    train &= _frequent(item_id, train, config.min_item_interactions)
    train &= _frequent(user_id, train, config.min_user_interactions)
    if not train.any():
        raise DataValueError(
            f"{directory / 'interactions.parquet'}: nothing to train on: of {user_id.size} positives "
            f"{np.count_nonzero(test)} are test and {np.count_nonzero(held)} are of users held out; "
            "lower test_fraction, holdout_users or the minimum counts"
        )
    time = interactions.time[positive]
    return Parts(user_id, item_id, time, train, test & ~held, ~test & held, test & held, held_users)


def _frequent(ids: np.ndarray, counted: np.ndarray, minimum: int) -> np.ndarray:
    """Returns which ``ids`` (int64 [n]) occur at least ``minimum`` times among the ``counted`` (bool [n]): bool [n]."""
    if minimum <= 1:
        return np.ones(ids.size, dtype=bool)
    values, counts = np.unique(ids[counted], return_counts=True)
    return np.isin(ids, values[counts >= minimum])
