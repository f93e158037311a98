"""The parts of a data set: what is trained on, what is tested on, and users held out of training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trireme_export.data.errors import DataValueError
from trireme_export.data.options import DataConfig
from trireme_export.data.reader import Interactions
from trireme_export.data.split import SplitBy, draw_holdout, most_tested, test_mask

__all__ = ["Parts", "split_positives"]


@dataclass(frozen=True)
class Parts:
    """Positives in ascending time, and the part of each. A row in no part is not used."""

    user_id: np.ndarray
    item_id: np.ndarray
    time: np.ndarray
    place: np.ndarray
    """int64 [n], the row of each in ``Interactions``."""
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
    """Splits the positives of ``interactions``; the test is their last part. For a validation, it is split off twice.

    Raises:
        DataValueError: nothing is left to train on, or more than the test may hold share the last time.
    """
    positive = np.flatnonzero(interactions.positive)
    if config.validation:
        user_id, time = interactions.user_id[positive], interactions.time[positive]
        positive = positive[~test_mask(user_id, time, config.test_fraction, by)]
    user_id, item_id = interactions.user_id[positive], interactions.item_id[positive]
    time = interactions.time[positive]
    test = test_mask(user_id, time, config.test_fraction, by)
    if by == "time" and most_tested(time.size, config.test_fraction) > 0 and not test.any():
        raise DataValueError(_last_time_is_too_common(directory, interactions.time_column, time, config.test_fraction))
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
    return Parts(user_id, item_id, time, positive, train, test & ~held, ~test & held, test & held, held_users)


def _last_time_is_too_common(directory: Path, column: str, time: np.ndarray, fraction: float) -> str:
    """Returns what is wrong if more of ``time`` (int64 [n], ascending) than the test may hold is the last one."""
    shared = int(np.count_nonzero(time == time[-1]))
    enough = -(-1000 * shared // time.size) / 1000
    larger = f"a test_fraction of {enough:g} or more, " if enough < 1 else ""
    return (
        f"{directory / 'interactions.parquet'}, column {column!r}: {shared} of {time.size} positives share the last time, "
        f"more than data.test_fraction ({fraction:g}) of them, and no time is divided between training and test; "
        f"allowed: {larger}a time_column of finer times, or split_by: user"
    )


def _frequent(ids: np.ndarray, counted: np.ndarray, minimum: int) -> np.ndarray:
    """Returns which ``ids`` (int64 [n]) occur at least ``minimum`` times among the ``counted`` (bool [n]): bool [n]."""
    if minimum <= 1:
        return np.ones(ids.size, dtype=bool)
    values, counts = np.unique(ids[counted], return_counts=True)
    return np.isin(ids, values[counts >= minimum])
