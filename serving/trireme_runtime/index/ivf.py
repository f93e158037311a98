"""Approximate search: an inverted file with 4-bit product-quantised codes, and exact refinement of what it finds.

The coarse quantiser and the codes are Faiss's IVF with fast scan (Douze et al., "The Faiss library", arXiv:2401.08281;
André et al., "Cache locality is not enough", VLDB 2015). Items are put into lists by their distance after one more dimension
has given all of them the same length (Bachrach et al., RecSys 2014): lists of neighbours are then lists of what scores alike.
Codes estimate inner products, in which that dimension counts nothing, because queries have a 0 there. A query looks into the
lists whose best item promises most: the inner product with the list's mean, and what the best item of the list had above it
for other users. The best ``depth`` items get their exact inner products from the memory-mapped vectors: the scores of
candidates are those of exact search.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import faiss
import numpy as np

from trireme_runtime.arrays import contains, pairs_of_rows
from trireme_runtime.artifacts import save_stage
from trireme_runtime.errors import ArtifactError
from trireme_runtime.select import top_columns

__all__ = ["IvfIndex", "lengthened"]

CODES = "codes.faiss"
#: Of Faiss's fast-scan loops the one that takes several queries at a time and keeps a reservoir of results: for these depths the
#: fastest on one thread, and, unlike the automatic choice, the same whatever the number of threads.
ALGORITHM = 13
#: For a user who ran short: how many times as many lists every further search looks into.
WIDENING = 4


def lengthened(vectors: np.ndarray, longest: float | None, size: int) -> np.ndarray:
    """float32 [n, size]: the vectors with one dimension more, so that every length is ``longest``, and zeros.

    Queries (``longest`` None) get a 0 there: their distance to an item then falls as their inner product rises.
    """
    n, width = vectors.shape
    longer = np.zeros((n, size), dtype=np.float32)
    longer[:, :width] = vectors
    if longest is not None:
        longer[:, width] = np.sqrt(np.maximum(longest**2 - np.einsum("nd,nd->n", vectors, vectors), 0))
    return longer


class IvfIndex:
    """Looks into the ``probes`` most promising lists of the inverted file.

    Args:
        codes: trained Faiss IVF index over ``lengthened`` vectors.
        vectors: float32 [items, Q], C-contiguous; may be memory-mapped.
        means: float32 [lists, Q], mean vector of every list.
        bonus: float32 [lists], mean over users of the inner product with the best item of the list, less that with its mean.
        probes: lists to look into.
        depth: items per query that are scored exactly, at least the number of candidates.
    """

    kind: ClassVar[str] = "ivf"

    def __init__(
        self, codes: Any, vectors: np.ndarray, means: np.ndarray, bonus: np.ndarray, probes: int, depth: int
    ) -> None:
        self.codes = codes
        self.vectors = vectors
        self.means = means
        self.bonus = bonus
        self.probes = probes
        self.depth = depth
        codes.implem = ALGORITHM

    def search(
        self, query: np.ndarray, excluded: tuple[np.ndarray, np.ndarray], count: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """See ``ItemIndex.search``."""
        index, score = self._search(query, excluded, count, self.depth, self.probes)
        # A user who has seen many of their best items runs short; only their search is repeated, deeper and in more lists.
        widths = [self.probes]
        while widths[-1] < self.codes.nlist:
            widths.append(min(widths[-1] * WIDENING, self.codes.nlist))
        for probes in widths:
            short = np.flatnonzero(index[:, -1] < 0)
            if not short.size:
                break
            mine = pairs_of_rows(excluded, short, len(query))
            depth = self.depth + int(np.bincount(mine[0], minlength=1).max())
            if (depth, probes) == (self.depth, self.probes):
                continue  # that was done above
            index[short], score[short] = self._search(query[short], mine, count, depth, probes)
        return index, score

    def _search(
        self, query: np.ndarray, excluded: tuple[np.ndarray, np.ndarray], count: int, depth: int, probes: int
    ) -> tuple[np.ndarray, np.ndarray]:
        found = self.nearest(query, min(depth, len(self.vectors)), probes)
        keep = (found >= 0) & ~contains(*excluded, found, len(self.vectors))
        score = np.where(keep, self.inner_products(query, found), np.float32(-np.inf))
        column, value = top_columns(score, count)
        index = np.where(column >= 0, np.take_along_axis(found, column, axis=1), -1)
        return index.astype(np.int32), value

    def nearest(self, query: np.ndarray, depth: int, probes: int) -> np.ndarray:
        """Item index int64 [batch, depth] by the codes alone, nearest first; −1 where the probed lists hold no more."""
        promise = query @ self.means.T + self.bonus
        lists = np.argpartition(promise, -probes, axis=1)[:, -probes:].astype(np.int64)
        self.codes.nprobe = probes
        # No list's distance is needed: codes are not relative to its centroid.
        distance = np.zeros(lists.shape, dtype=np.float32)
        padded = lengthened(query, None, self.codes.d)
        found: np.ndarray = self.codes.search_preassigned(padded, depth, lists, distance)[1]
        return found

    def inner_products(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        """float32 [batch, n] of the items int64 [batch, n], read where they lie; anything at −1."""
        score = np.zeros(item.shape, dtype=np.float32)
        query = np.ascontiguousarray(query)  # held by a name until Faiss has read it: a pointer keeps nothing alive
        faiss.fvec_inner_products_by_idx(  # type: ignore[attr-defined]  # its stubs miss it
            faiss.swig_ptr(score),
            faiss.swig_ptr(query),
            faiss.swig_ptr(self.vectors),
            faiss.swig_ptr(item),
            self.vectors.shape[1],
            *item.shape,
        )
        return score

    def save(self, path: Path) -> None:
        arrays = {"vectors": self.vectors, "means": self.means, "bonus": self.bonus}
        save_stage(path, "index", arrays, {"kind": self.kind, "probes": self.probes, "depth": self.depth})
        faiss.write_index(self.codes, str(path / CODES))

    @classmethod
    def load(cls, path: Path, arrays: Mapping[str, np.ndarray], parameters: Mapping[str, Any]) -> IvfIndex:
        """Raises: ArtifactError."""
        try:
            codes = faiss.read_index(str(path / CODES))
        except RuntimeError as error:
            raise ArtifactError(f"{path / CODES}: cannot be read by Faiss ({error})") from None
        return cls(
            codes, arrays["vectors"], arrays["means"], arrays["bonus"], parameters["probes"], parameters["depth"]
        )
