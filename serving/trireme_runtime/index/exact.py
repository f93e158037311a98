"""Exact search: one matrix product with all items, then a selection."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from trireme_runtime.artifacts import save_stage
from trireme_runtime.native.tables import Tables, save_tables
from trireme_runtime.onnx_model import OnnxModel
from trireme_runtime.select import top_columns

__all__ = ["ExactIndex"]

#: Scores held at a time: 8 M float32 are 32 MB.
BLOCK = 8 << 20


class ExactIndex:
    """All inner products: recall 1, at a cost that grows with the catalogue.

    Args:
        product: ``query`` float32 [batch, Q] → inner products float32 [batch, catalogue_size], in the order of the item
            index. A graph, because ONNX Runtime packs a constant matrix once, and a BLAS in every call: for the small batches
            of a server, that is most of the time of the product.
        catalogue_size: number of items.
        compiled: the same vectors with codes, for a chain of stages, see ``native``.
    """

    kind: ClassVar[str] = "exact"

    def __init__(self, product: OnnxModel, catalogue_size: int, compiled: Tables | None = None) -> None:
        self.product = product
        self.catalogue_size = catalogue_size
        self.compiled = compiled

    def search(
        self, query: np.ndarray, excluded: tuple[np.ndarray, np.ndarray], count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``ItemIndex.search``."""
        row, item = excluded
        step = max(1, BLOCK // self.catalogue_size)
        parts = []
        for start in range(0, len(query), step):
            score = self.product({"query": query[start : start + step]})
            if len(query) > step:
                inside = (row >= start) & (row < start + step)
                score[row[inside] - start, item[inside]] = -np.inf
            else:
                score[row, item] = -np.inf
            parts.append(top_columns(score, count))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    def vectors(self, item: np.ndarray) -> np.ndarray:
        """See ``ItemIndex.vectors``. Without a compiled form, they are the products of all items with the unit vectors: ask for
        many at once."""
        if self.compiled is not None:
            found: np.ndarray = self.compiled["vectors"][item]
            return found
        (query,) = self.product.signature.inputs
        unit = np.eye(query.shape[1], dtype=np.float32)
        return np.ascontiguousarray(self.product({"query": unit})[:, item].T)

    def borderline(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        """See ``ItemIndex.borderline``: all items are looked at."""
        return np.zeros(item.shape, dtype=bool)

    def save(self, path: Path) -> None:
        save_stage(path, "index", {}, {"kind": self.kind, "items": self.catalogue_size})
        self.product.save(path)
        if self.compiled is not None:
            save_tables(path, "index", self.compiled)
