"""Puts item vectors into the lists of an inverted file."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from trireme_export.exporters.native import EIGHT, interleaved, item_codes, quantised

__all__ = ["inverted_file"]

#: Vectors per list that the coarse quantiser is trained on.
TRAINING_VECTORS = 32
ITERATIONS = 10
AT_ONCE = 1 << 17


def inverted_file(vectors: np.ndarray, lists: int) -> dict[str, Any]:
    """Returns the tables of ``IvfIndex`` but for ``bonus``; equal ``vectors`` (float32 [N, Q]) give equal ones.

    Lists that stay empty are left out. Every other one is filled up to whole groups of items.
    """
    assigned = _assign(vectors, lists)
    order = np.argsort(assigned, kind="stable").astype(np.int32)
    _, sizes = np.unique(assigned, return_counts=True)
    first = np.concatenate([[0], np.cumsum(-(-sizes // EIGHT) * EIGHT)])
    ends = np.cumsum(sizes)
    place = np.empty(len(vectors), dtype=np.int32)
    place[order] = np.arange(len(vectors)) + np.repeat(first[:-1] - (ends - sizes), sizes)
    item = np.full(first[-1], -1, dtype=np.int32)
    item[place] = np.arange(len(vectors))
    laid = vectors[item]
    laid[item < 0] = 0
    mean = np.add.reduceat(laid, first[:-1], axis=0) / sizes[:, None]
    held = item_codes(laid)
    codes, step, *_ = quantised((mean - held["centre"]) / held["range"])
    return {
        **held,
        # What the codes stand for, which the reference reads.
        "mean": (codes * step[:, None] * held["range"] + held["centre"]).astype(np.float32),
        "mean_codes": interleaved(codes),
        "mean_step": np.pad(step, (0, -len(step) % EIGHT)),
        "first": first.astype(np.int64),
        "item": item,
        "place": place,
        "items": len(vectors),
        "lists": len(sizes),
        "places": len(item),
    }


def _assign(vectors: np.ndarray, lists: int) -> np.ndarray:
    """Returns the list of every item, int64 [N]."""
    longer = lengthened(vectors)
    rows = np.sort(np.random.default_rng(0).permutation(len(vectors))[: TRAINING_VECTORS * lists])
    means = faiss.Kmeans(
        longer.shape[1],
        lists,
        niter=ITERATIONS,
        min_points_per_centroid=1,  # fewer than it likes are no reason for a warning
        max_points_per_centroid=TRAINING_VECTORS,
        seed=0,
    )
    means.train(longer[rows])
    parts = [means.index.search(longer[at : at + AT_ONCE], 1)[1][:, 0] for at in range(0, len(longer), AT_ONCE)]
    return np.concatenate(parts)


def lengthened(vectors: np.ndarray) -> np.ndarray:
    """Returns the vectors with one dimension more, by which all of them are as long as the longest: float32 [n, Q + 1].

    Their distance to a query, which has a 0 there, falls as the inner product rises.
    """
    square = np.einsum("nd,nd->n", vectors, vectors)
    return np.column_stack([vectors, np.sqrt(np.maximum(square.max() - square, 0))]).astype(np.float32)
