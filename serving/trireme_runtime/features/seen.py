"""Items a user must not be shown: those they interacted with in training, and those in their history."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trireme_runtime.arrays import Pairs, contains, ragged_rows
from trireme_runtime.artifacts import load_stage, save_stage
from trireme_runtime.native.tables import Tables

__all__ = ["SeenItems"]


class SeenItems:
    """A CSR table of the items of every user, with an empty last row for unknown users.

    Args:
        offsets: int64 [users + 2].
        items: int32 [offsets[-1]], item indices.
        catalogue_size: number of items.
    """

    def __init__(self, offsets: np.ndarray, items: np.ndarray, catalogue_size: int) -> None:
        self.offsets = offsets
        self.items = items
        self.catalogue_size = catalogue_size

    def pairs(self, user_row: np.ndarray, history_index: np.ndarray, excluded: Pairs | None = None) -> Pairs:
        """What users must not be shown, with what their requests exclude; a pair may occur twice.

        ``user_row`` is int32 [batch, 1] with −1 for unknown; ``history_index`` is int32 [batch, L].
        """
        row, item = ragged_rows(self.offsets, self.items, self._rows(user_row))
        history = history_index.ravel()
        given = np.flatnonzero(history >= 0)
        rows, items = [row, given // history_index.shape[1]], [item, history[given]]
        if excluded is not None:
            rows.append(excluded[0])
            items.append(excluded[1])
        return np.concatenate(rows), np.concatenate(items)

    def mask(
        self,
        user_row: np.ndarray,
        history_index: np.ndarray,
        item_index: np.ndarray,
        excluded: Pairs | None = None,
    ) -> np.ndarray:
        """Returns which of ``item_index`` (int32 [batch, n]) are among ``pairs``, as bool [batch, n]."""
        return contains(*self.pairs(user_row, history_index, excluded), item_index, self.catalogue_size)

    def _rows(self, user_row: np.ndarray) -> np.ndarray:
        row = user_row[:, 0].astype(np.int64)
        return np.where(row < 0, self.offsets.size - 2, row)

    def tables(self) -> Tables:
        """What compiled stages read."""
        return {
            "seen_offsets": self.offsets,
            "seen_items": self.items,
            "users": self.offsets.size - 2,
            "items": self.catalogue_size,
        }

    def save(self, path: Path) -> None:
        save_stage(
            path,
            "seen",
            {"offsets": self.offsets, "items": self.items},
            {"catalogue_size": self.catalogue_size},
        )

    @classmethod
    def load(cls, path: Path) -> SeenItems:
        arrays, parameters = load_stage(path, "seen")
        return cls(arrays["offsets"], arrays["items"], parameters["catalogue_size"])
