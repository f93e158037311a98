"""retrieval: the items whose vectors fit the query best, without those the user knows already."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import faiss
import numpy as np

from trireme_stages.arrays import stable_partition
from trireme_stages.artifacts import load_stage, save_stage
from trireme_stages.errors import ArtifactError
from trireme_stages.seen import SeenItems

__all__ = ["Candidates", "Retrieval"]

INDEX = "index.faiss"
SEEN = "seen"


class Candidates(NamedTuple):
    """candidate_index int32 [batch, C], best first, −1 padding; retrieval_score float32 [batch, C], falling,
    0 at padding."""

    candidate_index: np.ndarray
    retrieval_score: np.ndarray


class Retrieval:
    """Inner-product search in a Faiss index; seen items leave before ranking spends time on them.

    Args:
        index: Faiss index over the item vectors, in the order of the item index.
        seen: what each user interacted with.
        candidates: C.
    """

    name: ClassVar[str] = "retrieval"

    def __init__(self, index: faiss.Index, seen: SeenItems, candidates: int) -> None:
        self.index = index
        self.seen = seen
        self.candidates = candidates

    def __call__(self, query: np.ndarray, user_row: np.ndarray, history_index: np.ndarray) -> Candidates:
        """Args: query float32 [batch, Q]; user_row int32 [batch, 1]; history_index int32 [batch, L]."""
        # Search deep enough that C items remain after the seen ones are taken out.
        depth = min(self.index.ntotal, self.candidates + self.seen.most(user_row, history_index))
        score, found = self.index.search(np.ascontiguousarray(query), depth)
        found = found.astype(np.int32)
        keep = (found >= 0) & ~self.seen.mask(user_row, history_index, found)
        order = stable_partition(keep, self.candidates)
        keep = np.take_along_axis(keep, order, axis=1)
        index = np.where(keep, np.take_along_axis(found, order, axis=1), np.int32(-1))
        score = np.where(keep, np.take_along_axis(score, order, axis=1), np.float32(0))
        return Candidates(*self._pad(index, score))

    def _pad(self, index: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        missing = self.candidates - index.shape[1]
        if missing <= 0:
            return index, score
        width = ((0, 0), (0, missing))
        return np.pad(index, width, constant_values=-1), np.pad(score, width)

    def save(self, path: Path) -> None:
        save_stage(path, self.name, {}, {"candidates": self.candidates})
        faiss.write_index(self.index, str(path / INDEX))
        self.seen.save(path / SEEN)

    @classmethod
    def load(cls, path: Path) -> Retrieval:
        _, parameters = load_stage(path, cls.name)
        faiss.omp_set_num_threads(1)
        try:
            index = faiss.read_index(str(path / INDEX), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise ArtifactError(f"{path / INDEX}: cannot be read by Faiss ({error})") from None
        return cls(index, SeenItems.load(path / SEEN), parameters["candidates"])
