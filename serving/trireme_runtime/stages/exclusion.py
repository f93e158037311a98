"""exclusion: what a user must not be shown, as a bit for every item, for a graph that cannot look it up."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from trireme_runtime.arrays import Pairs
from trireme_runtime.artifacts import load_stage, save_stage
from trireme_runtime.features.seen import SeenItems

__all__ = ["Excluded", "Exclusion", "excluded_bits"]

SEEN = "seen"


class Excluded(NamedTuple):
    """excluded_items uint8 [batch, ⌈N / 8⌉]: bit i of byte j, the lowest first, is 1 if item 8j + i must not come back."""

    excluded_items: np.ndarray


class Exclusion:
    """Marks the items that retrieval leaves out.

    Args:
        seen: what each user interacted with.
        item_ids: int64 [items], ascending, by which exclusions are looked up.
    """

    name: ClassVar[str] = "exclusion"

    def __init__(self, seen: SeenItems, item_ids: np.ndarray) -> None:
        self.seen = seen
        self.item_ids = item_ids

    def __call__(self, user_row: np.ndarray, history_index: np.ndarray, excluded: Pairs | None = None) -> Excluded:
        """Args: user_row int32 [batch, 1]; history_index int32 [batch, L]; excluded: what the requests exclude."""
        pairs = self.seen.pairs(user_row, history_index, excluded)
        return Excluded(excluded_bits(pairs, len(user_row), self.item_ids.size))

    def tables(self) -> None:
        """There is no compiled form."""

    def save(self, path: Path) -> None:
        save_stage(path, self.name, {"item_ids": self.item_ids})
        self.seen.save(path / SEEN)

    @classmethod
    def load(cls, path: Path) -> Exclusion:
        arrays, _ = load_stage(path, cls.name)
        return cls(SeenItems.load(path / SEEN), arrays["item_ids"])


def excluded_bits(pairs: Pairs, rows: int, catalogue_size: int) -> np.ndarray:
    """Returns the items of ``pairs`` as ``Excluded.excluded_items``."""
    marked = np.zeros((rows, catalogue_size), dtype=bool)
    marked[pairs] = True
    return np.packbits(marked, axis=1, bitorder="little")
