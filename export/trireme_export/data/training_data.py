"""What the training reads: plain arrays in index space. It knows nothing of files, outside ids or servers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy import sparse

from trireme_export.data.features import ListFeature
from trireme_export.data.histories import Float32, Int32, Int64, append_history_size, gather_history

__all__ = ["TrainingData"]


@dataclass(frozen=True)
class TrainingData:
    """Positives per user in time order, and the features of users and items: U users, N items, P positives.

    Raises:
        ValueError: an array does not fit; names the array, its values and what is allowed.
    """

    catalogue_size: int
    """N."""
    user_offsets: Int64
    """int64 [U + 1]."""
    user_items: Int32
    """int32 [P], each user's training positives, oldest first, repeats kept."""
    user_category: Int32
    """int32 [U, F], at least one column; values in [0, ``user_category_sizes[f]``), 0 is unknown."""
    user_category_sizes: tuple[int, ...]
    user_number: Float32
    """float32 [U, D − 1], standardised, 0 is unknown; the tower appends the length of the history."""
    user_times: Int64 | None = None
    """int64 [P], rising within a user; equal for what was taken at once. None where only the order within a user is known."""
    shared_clock: bool = True
    """Whether the models may know what was popular when, as ``user_times`` has one clock for all users."""
    item_category: Int32 | None = None
    """int32 [N, Fi]; values in [0, ``item_category_sizes[f]``); None is no column."""
    item_category_sizes: tuple[int, ...] = ()
    item_number: Float32 | None = None
    """float32 [N, Di], standardised; None is no column."""
    item_lists: tuple[ListFeature, ...] = ()
    context: Int32 | None = None
    """int32 [P, C], what was known of the request of each positive; values in [0, ``context_sizes[c]``), 0 is unknown; None is no
    column."""
    context_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.item_category is None:
            object.__setattr__(self, "item_category", np.zeros((self.catalogue_size, 0), dtype=np.int32))
        if self.user_times is None:
            object.__setattr__(self, "shared_clock", False)
        if self.item_number is None:
            object.__setattr__(self, "item_number", np.zeros((self.catalogue_size, 0), dtype=np.float32))
        self._check_interactions()
        self._check_features()

    @property
    def category_sizes(self) -> tuple[int, ...]:
        """Of the categories that the models read: those of the user, and behind them the context."""
        return self.user_category_sizes + self.context_sizes

    @property
    def n_users(self) -> int:
        """U."""
        return len(self.user_offsets) - 1

    @property
    def users(self) -> Int64:
        """int64 [P], the user row of each positive."""
        return np.repeat(np.arange(self.n_users), np.diff(self.user_offsets))

    def incidence(self, positives: npt.NDArray) -> sparse.csr_matrix:
        """Returns who took what among the ``positives`` bool [P]: float32 [U, N] of zeros and ones."""
        ones = np.ones(np.count_nonzero(positives), dtype=np.float32)
        place = self.users[positives], self.user_items[positives]
        table = sparse.csr_matrix((ones, place), shape=(self.n_users, self.catalogue_size))
        table.sum_duplicates()
        table.data[:] = 1.0
        return table

    def keep(self, positives: npt.NDArray) -> TrainingData:
        """Returns the same users and items with only the ``positives`` bool [P]."""
        counts = np.concatenate([[0], np.cumsum(positives)])[self.user_offsets]
        times = None if self.user_times is None else self.user_times[positives]
        context = None if self.context is None else self.context[positives]
        return replace(
            self,
            user_offsets=counts.astype(np.int64),
            user_items=self.user_items[positives],
            user_times=times,
            context=context,
        )

    def history(self, length: int, rows: npt.NDArray | None = None) -> Int32:
        """Returns the newest ``length`` positives of the users ``rows``, or of all: int32 [u, length], left-padded with −1."""
        rows = np.arange(self.n_users) if rows is None else np.asarray(rows)
        return gather_history(self.user_items, self.user_offsets[rows], self.user_offsets[rows + 1], length)

    def user_inputs(self, history: Int32, rows: npt.NDArray, context: Int32 | None = None) -> tuple[Int32, Float32]:
        """Returns ``user_category`` int32 [B, F + C] and ``user_number`` float32 [B, D] of ``rows``; row −1 is an unknown user.

        ``context``: int32 [B, C]; None is unknown.
        """
        rows = np.asarray(rows)
        known = (rows >= 0)[:, None]
        category = np.where(known, self.user_category[rows], 0).astype(np.int32)
        number = np.where(known, self.user_number[rows], 0).astype(np.float32)
        if self.context_sizes:
            given = np.zeros((len(rows), len(self.context_sizes)), np.int32) if context is None else context
            category = np.concatenate([category, given], axis=1)
        return category, append_history_size(number, history)

    def _check_interactions(self) -> None:
        offsets, items = self.user_offsets, self.user_items
        if self.catalogue_size < 1:
            raise ValueError(f"catalogue_size is {self.catalogue_size}: at least one item is needed")
        if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(items) or (np.diff(offsets) < 0).any():
            raise ValueError(f"user_offsets must rise from 0 to the {len(items)} entries of user_items")
        _check_range("user_items", items, self.catalogue_size)
        if self.user_times is None:
            return
        if len(self.user_times) != len(items):
            raise ValueError(f"user_times has {len(self.user_times)} entries, user_items has {len(items)}")
        falls = np.flatnonzero(np.diff(self.user_times) < 0) + 1
        if not np.isin(falls, offsets).all():
            raise ValueError("user_times must not fall within a user: sort each user's positives by time")

    def _check_features(self) -> None:
        _check_table("user_category", self.user_category, self.n_users, self.user_category_sizes)
        if self.user_category.shape[1] < 1:
            raise ValueError("user_category has no column: at least one is needed (all 0 = unknown)")
        if self.context is not None or self.context_sizes:
            context = np.zeros((0, 0), np.int32) if self.context is None else self.context
            _check_table("context", context, len(self.user_items), self.context_sizes)
        assert self.item_category is not None
        assert self.item_number is not None
        _check_table("item_category", self.item_category, self.catalogue_size, self.item_category_sizes)
        for name, table, rows in (
            ("user_number", self.user_number, self.n_users),
            ("item_number", self.item_number, self.catalogue_size),
        ):
            if table.ndim != 2 or len(table) != rows:
                raise ValueError(f"{name} has shape {table.shape}: ({rows}, columns) is needed")
            if not np.isfinite(table).all():
                raise ValueError(f"{name} holds values that are not finite: use 0 for unknown")
        for position, column in enumerate(self.item_lists):
            name = f"item_lists[{position}]"
            if len(column.offsets) != self.catalogue_size + 1 or column.offsets[-1] != len(column.values):
                raise ValueError(
                    f"{name}.offsets must have {self.catalogue_size + 1} entries and end at {len(column.values)}"
                )
            _check_range(f"{name}.values", column.values, column.size)


def _check_range(name: str, values: npt.NDArray, size: int) -> None:
    if len(values) and (values.min() < 0 or values.max() >= size):
        raise ValueError(f"{name} holds {values.min()}..{values.max()}: 0..{size - 1} is allowed")


def _check_table(name: str, table: npt.NDArray, rows: int, sizes: tuple[int, ...]) -> None:
    if table.ndim != 2 or table.shape != (rows, len(sizes)):
        raise ValueError(f"{name} has shape {table.shape}: ({rows}, {len(sizes)}) is needed")
    for column, size in enumerate(sizes):
        _check_range(f"{name}[:, {column}]", table[:, column], size)
