"""Exact search on a GPU: all inner products with vectors of 16 bits, by Faiss, which is imported only where a GPU is asked for.

The query comes from and the candidates go to the memory of the CPU. Triton's Python backend copies inputs there unless a model
sets FORCE_CPU_ONLY_INPUT_TENSORS to "no", and for a batch of 64 queries of 128 numbers that copy is 32 kB: less than what a way
around it, by DLPack and a library that reads it, would cost.

Faiss knows nothing of exclusions, so a search asks for as many more items as a row of the batch excludes at most, and leaves
the excluded ones out afterwards. A GPU finds at most ``MOST`` items for a query; for a row that would need more, the index on
the CPU is asked, and so it is for a query that 16 bits cannot hold.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from trireme_runtime.arrays import Pairs, contains, pairs_of_rows

if TYPE_CHECKING:
    from trireme_runtime.index import ItemIndex

__all__ = ["MOST", "FlatIndex", "GpuIndex", "on_gpu"]

log = logging.getLogger(__name__)

#: What a GPU finds at most for a query (``getMaxKSelection`` of Faiss; more with cuVS).
MOST = 2048
#: Bytes of the GPU that Faiss holds for the scores of a batch, per instance; without room for all, it takes them in parts.
TEMPORARY = 256 << 20
LARGEST = np.finfo(np.float16).max


class FlatIndex(Protocol):
    """What is used of Faiss's flat indexes."""

    def search(self, query: np.ndarray, k: int, /) -> tuple[np.ndarray, np.ndarray]:
        """``(inner product float32 [batch, k], item index int64 [batch, k])`` of queries float32 [batch, Q], the best first."""
        ...


class GpuIndex:
    """An index of the bundle, with its search on a GPU.

    Scores are of vectors and queries rounded to 16 bits; of items whose scores are equal at the end of a list, any may be the
    candidate.

    Args:
        index: gives the vectors, and answers what a GPU does not.
        make: the flat index over vectors float32 [N, Q]; ``on_gpu`` passes one of Faiss on a GPU.
    """

    #: A chain calls it by itself: the compiled form searches on the CPU.
    compiled = None

    def __init__(self, index: ItemIndex, make: Callable[[np.ndarray], FlatIndex]) -> None:
        self.catalogue_size = index.catalogue_size
        self._index = index
        self._flat = make(index.vectors(np.arange(index.catalogue_size)))

    def search(self, query: np.ndarray, excluded: Pairs, count: int) -> tuple[np.ndarray, np.ndarray]:
        """See ``ItemIndex.search``."""
        needed = np.minimum(count + np.bincount(excluded[0], minlength=len(query)), self.catalogue_size)
        found = (needed <= MOST) & (np.abs(query).max(axis=1) <= LARGEST)
        if found.all():
            return self._search(query, excluded, count)
        index = np.empty((len(query), count), dtype=np.int32)
        score = np.empty((len(query), count), dtype=np.float32)
        for rows, search in ((np.flatnonzero(found), self._search), (np.flatnonzero(~found), self._index.search)):
            if rows.size:
                own = pairs_of_rows(excluded, rows, len(query))
                index[rows], score[rows] = search(query[rows], own, count)
        return index, score

    def _search(self, query: np.ndarray, excluded: Pairs, count: int) -> tuple[np.ndarray, np.ndarray]:
        """For rows that the GPU answers."""
        row, item = excluded
        depth = min(count + int(np.bincount(row, minlength=1).max()), self.catalogue_size)
        product, best = self._flat.search(np.ascontiguousarray(query), depth)
        kept = ~contains(row, item, best, self.catalogue_size) & (best >= 0)
        place = np.cumsum(kept, axis=1) - 1
        users, columns = np.nonzero(kept & (place < count))
        index = np.full((len(query), count), -1, dtype=np.int32)
        score = np.zeros((len(query), count), dtype=np.float32)
        index[users, place[users, columns]] = best[users, columns]
        score[users, place[users, columns]] = product[users, columns]
        return index, score

    def vectors(self, item: np.ndarray) -> np.ndarray:
        """See ``ItemIndex.vectors``: as in the bundle, not rounded."""
        return self._index.vectors(item)

    def borderline(self, query: np.ndarray, item: np.ndarray) -> np.ndarray:
        """See ``ItemIndex.borderline``: of the index in the bundle."""
        return self._index.borderline(query, item)

    def save(self, path: Path) -> None:
        """Writes the index in the bundle."""
        self._index.save(path)


def on_gpu(index: ItemIndex, device: int) -> ItemIndex:
    """Returns ``index`` with its search on the GPU ``device``; as it is, with one warning, where that cannot be."""
    try:
        import faiss
    except ImportError as error:  # also where it is there, and a CUDA library that it needs is not
        return _on_cpu(index, device, f"Faiss cannot be imported ({error})")
    gpus = faiss.get_num_gpus() if hasattr(faiss, "StandardGpuResources") else 0
    if device >= gpus:
        return _on_cpu(index, device, f"Faiss {faiss.__version__} finds {gpus} GPUs")

    def make(vectors: np.ndarray) -> FlatIndex:
        return _FaissOnGpu(faiss, vectors, device)

    try:
        return GpuIndex(index, make)
    except OverflowError as error:
        return _on_cpu(index, device, str(error))


def _on_cpu(index: ItemIndex, device: int, reason: str) -> ItemIndex:
    log.warning("retrieval searches on the CPU, not on GPU %d: %s", device, reason)
    return index


class _FaissOnGpu:
    """A flat index on a GPU, with resources of its own, since they are not thread-safe.

    Raises:
        OverflowError: a vector has numbers that 16 bits cannot hold.
    """

    def __init__(self, faiss: Any, vectors: np.ndarray, device: int) -> None:
        if (largest := float(np.abs(vectors).max())) > LARGEST:
            raise OverflowError(f"item vectors hold {largest:g}, allowed in 16 bits is up to {LARGEST:g}")
        self._resources = faiss.StandardGpuResources()  # the index only refers to them
        self._resources.setTempMemory(TEMPORARY)
        config = faiss.GpuIndexFlatConfig()
        config.useFloat16 = True
        config.device = device
        self._index = faiss.GpuIndexFlatIP(self._resources, vectors.shape[1], config)
        self._index.add(np.ascontiguousarray(vectors))

    def search(self, query: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        product, item = self._index.search(query, k)
        return product, item
