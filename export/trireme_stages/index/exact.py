"""Exact search: one matrix product with all items, then a selection."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from trireme_stages.artifacts import save_stage
from trireme_stages.select import top_columns

__all__ = ["ExactIndex"]

#: Scores held at a time: 8 M float32 are 32 MB.
BLOCK = 8 << 20


class ExactIndex:
    """All inner products: recall 1, at a cost that grows with the catalogue.

    Args:
        vectors: float32 [items, Q], in the order of the item index; may be memory-mapped.
    """

    kind: ClassVar[str] = "exact"

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def search(
        self, query: np.ndarray, excluded: tuple[np.ndarray, np.ndarray], count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``ItemIndex.search``."""
        row, item = excluded
        step = max(1, BLOCK // max(1, len(self.vectors)))
        parts = []
        for start in range(0, len(query), step):
            score = query[start : start + step] @ self.vectors.T
            if len(query) > step:
                inside = (row >= start) & (row < start + step)
                score[row[inside] - start, item[inside]] = -np.inf
            else:
                score[row, item] = -np.inf
            parts.append(top_columns(score, count))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def save(self, path: Path) -> None:
        save_stage(path, "index", {"vectors": self.vectors}, {"kind": self.kind})
