"""retrieval: the items whose vectors fit the query best, without those the user knows already or excludes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from trireme_runtime.arrays import Pairs
from trireme_runtime.artifacts import load_stage, save_stage
from trireme_runtime.features.seen import SeenItems
from trireme_runtime.index import ItemIndex, load_index
from trireme_runtime.native.tables import Tables

__all__ = ["Candidates", "Retrieval"]

INDEX = "index"
SEEN = "seen"


class Candidates(NamedTuple):
    """candidate_index int32 [batch, C], in no order, none of them seen or excluded by the user, −1 padding last;
    retrieval_score float32 [batch, C], 0 at padding. For a query that is no vector there are no candidates, and all scores
    are NaN."""

    candidate_index: np.ndarray
    retrieval_score: np.ndarray


class Retrieval:
    """Inner-product search over the item vectors; seen items leave before ranking spends time on them.

    Candidates are a set: ordering them would be work that ranking throws away.

    Args:
        index: finds the items with the largest inner products.
        seen: what each user interacted with.
        candidates: C.
        item_ids: int64 [items], ascending, by which exclusions are looked up.
    """

    name: ClassVar[str] = "retrieval"

    def __init__(self, index: ItemIndex, seen: SeenItems, candidates: int, item_ids: np.ndarray) -> None:
        self.index = index
        self.seen = seen
        self.candidates = candidates
        self.item_ids = item_ids

    def __call__(
        self, query: np.ndarray, user_row: np.ndarray, history_index: np.ndarray, excluded: Pairs | None = None
    ) -> Candidates:
        """Args: query float32 [batch, Q]; user_row int32 [batch, 1]; history_index int32 [batch, L]; excluded: what the
        requests exclude."""
        excluded = self.seen.pairs(user_row, history_index, excluded)
        usable = np.isfinite(query).all(axis=1)
        if usable.all():
            return Candidates(*self.index.search(query, excluded, self.candidates))
        index, score = self.index.search(np.where(usable[:, None], query, np.float32(0)), excluded, self.candidates)
        return Candidates(
            np.where(usable[:, None], index, np.int32(-1)), np.where(usable[:, None], score, np.float32(np.nan))
        )

    def tables(self) -> Tables | None:
        """What the compiled form reads, if the index has one."""
        compiled = self.index.compiled
        if compiled is None:
            return None
        return {**self.seen.tables(), **compiled, "candidates": self.candidates}

    def save(self, path: Path) -> None:
        save_stage(path, self.name, {"item_ids": self.item_ids}, {"candidates": self.candidates})
        self.index.save(path / INDEX)
        self.seen.save(path / SEEN)

    @classmethod
    def load(cls, path: Path, device: int | None = None) -> Retrieval:
        """Args: device: the GPU that searches, see ``index.gpu``; None for the CPU."""
        arrays, parameters = load_stage(path, cls.name)
        seen = SeenItems.load(path / SEEN)
        return cls(load_index(path / INDEX, device), seen, parameters["candidates"], arrays["item_ids"])
