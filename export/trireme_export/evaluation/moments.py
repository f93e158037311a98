"""The test part as it happens: what each user took at one time, and what a feature store holds just before.

Items that a user took before, in training or since, are in no list that knows of it, so that they cannot be right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from trireme_export.data import Dataset
from trireme_export.data.evaluation_set import EvaluationSet
from trireme_export.data.histories import distinct_pairs, gather_history, row_offsets
from trireme_export.tables import Tables
from trireme_runtime.arrays import ragged_rows
from trireme_runtime.features.record import merge

__all__ = ["Moments", "test_moments"]


@dataclass(frozen=True)
class Moments:
    """M moments at which users of training took something new to them, ascending in user and time."""

    user_row: np.ndarray
    """int32 [M]."""
    event_items: np.ndarray
    """int32 [E]: all that users took in the test part, each item once at a time; ascending in user, time and item."""
    event_times: np.ndarray
    """int64 [E], in the unit of the data."""
    starts: np.ndarray
    """int64 [M]: where the events of the user begin."""
    ends: np.ndarray
    """int64 [M]: where those of the moment begin, and what was taken before ends."""
    relevant_offsets: np.ndarray
    """int64 [M + 1], strictly rising."""
    relevant_items: np.ndarray
    """int32 [relevant_offsets[-1]]: what was new to the user then, ascending and distinct per moment."""
    context: np.ndarray | None = None
    """int32 [M, C], of the first of these items; None where the data has no context."""

    @property
    def has_fresh(self) -> np.ndarray:
        """Whether the user took anything between the snapshot and the moment: bool [M]."""
        return self.ends > self.starts

    @property
    def relevant_count(self) -> np.ndarray:
        """int64 [M], at least 1."""
        return np.diff(self.relevant_offsets)

    def take(self, rows: np.ndarray) -> Moments:
        """Returns only the moments at positions ``rows`` (int [m])."""
        position, items = ragged_rows(self.relevant_offsets, self.relevant_items, rows)
        return replace(
            self,
            user_row=self.user_row[rows],
            starts=self.starts[rows],
            ends=self.ends[rows],
            relevant_offsets=row_offsets(position, rows.size),
            relevant_items=items,
            context=None if self.context is None else self.context[rows],
        )

    def fresh(self, length: int) -> np.ndarray:
        """Returns the items that a store of so many holds at each moment: int32 [M, length], left-padded with −1, newest last."""
        return gather_history(self.event_items, self.starts, self.ends, length)

    def asked(self, tables: Tables, with_fresh: bool) -> EvaluationSet:
        """Returns the users as they ask at each moment, with the history that a server has: the bundle's, with or without
        what a store holds."""
        history = tables.history[self.user_row]
        if with_fresh:
            history = merge(history, self.fresh(history.shape[1]))
        row, column = np.nonzero(history >= 0)
        return EvaluationSet(
            tables.user_ids[self.user_row],
            self.user_row,
            row_offsets(row, self.user_row.size),
            history[row, column],
            self.relevant_offsets,
            self.relevant_items,
        )


def test_moments(dataset: Dataset) -> Moments:
    """Returns the moments of the test part. What is taken at one time, such as a basket, is one: none of it is known before."""
    event = _events(dataset)
    user, item, time = _users(dataset)[event], dataset.test_items[event], dataset.test_times[event]
    begins_user = np.diff(user, prepend=-1) != 0
    begins = begins_user | (np.diff(time, prepend=time[:1]) != 0)
    first = np.flatnonzero(begins)
    moment = np.cumsum(begins) - 1
    new = np.flatnonzero(_is_new(dataset, user, item))
    asked, foremost, place = np.unique(moment[new], return_index=True, return_inverse=True)
    ends = first[asked]
    return Moments(
        user_row=user[ends].astype(np.int32),
        event_items=item,
        event_times=time,
        starts=np.searchsorted(user, user[ends]),
        ends=ends,
        relevant_offsets=row_offsets(place, asked.size),
        relevant_items=item[new],
        context=dataset.test_context.take(event[new[foremost]]),
    )


test_moments.__test__ = False  # type: ignore[attr-defined]  # pytest collects by name


def _users(dataset: Dataset) -> np.ndarray:
    """The user row of what was taken in the test part: int64 [events]."""
    return np.repeat(np.arange(dataset.n_users), np.diff(dataset.test_offsets))


def _events(dataset: Dataset) -> np.ndarray:
    """The places of what was taken in the test part, as a store keeps it: ordered by user, time and item, and each event once."""
    user = _users(dataset)
    order = np.lexsort((dataset.test_items, dataset.test_times, user))
    user, item, time = user[order], dataset.test_items[order], dataset.test_times[order]
    again = (np.diff(user, prepend=-1) == 0) & (np.diff(time, prepend=-1) == 0) & (np.diff(item, prepend=-1) == 0)
    return order[~again]


def _is_new(dataset: Dataset, user: np.ndarray, item: np.ndarray) -> np.ndarray:
    """Which events are of users with a history, and the first of their item: bool [events]."""
    pair = user * dataset.catalogue_size + item
    is_new = np.zeros(pair.size, dtype=bool)
    is_new[np.unique(pair, return_index=True)[1]] = True
    counts = np.diff(dataset.train_offsets)
    trained_user, trained_item = distinct_pairs(
        np.repeat(np.arange(dataset.n_users), counts), dataset.train_items, dataset.catalogue_size
    )
    return is_new & (counts[user] > 0) & ~np.isin(pair, trained_user * dataset.catalogue_size + trained_item)
