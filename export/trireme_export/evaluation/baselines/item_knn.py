"""Nearest neighbours of items by the cosine of their users, with shrinkage.

Sarwar, Karypis, Konstan and Riedl, "Item-Based Collaborative Filtering Recommendation Algorithms", WWW 2001; the
shrinkage is that of Bell and Koren, "Improved Neighborhood-based Collaborative Filtering", KDD Cup 2007, as Ferrari
Dacrema, Cremonesi and Jannach use it ("Are We Really Making Much Progress?", RecSys 2019).
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy import sparse

from trireme_export.evaluation.baselines.method import Method
from trireme_export.evaluation.baselines.positives import Positives

__all__ = ["ITEM_KNN", "ItemKNN"]

#: Similarities that are held at a time.
SIMILARITIES = 1 << 24


class ItemKNN:
    """The similarities of every item with its ``neighbours`` nearest: the score of an item is their sum over the history.

    Two items that n users have both taken, and n_i and n_j users each, are similar by n / (√(n_i n_j) + shrinkage).
    """

    def __init__(self, positives: Positives, neighbours: int, shrinkage: float) -> None:
        x = positives.matrix
        norm = np.sqrt(np.asarray(x.sum(axis=0), dtype=np.float32).ravel())
        step = max(1, SIMILARITIES // positives.catalogue_size)
        columns = x.T.tocsr()
        parts = [
            _nearest(columns[low : low + step] @ x, norm, low, neighbours, shrinkage)
            for low in range(0, positives.catalogue_size, step)
        ]
        self._similarity = sparse.vstack(parts, format="csr").T.tocsr()

    def score(self, histories: sparse.csr_matrix) -> np.ndarray:
        scores: np.ndarray = (histories @ self._similarity).toarray()
        return scores


def _nearest(
    shared: sparse.csr_matrix, norm: np.ndarray, low: int, neighbours: int, shrinkage: float
) -> sparse.csr_matrix:
    """Keeps the largest similarities of the items ``low``, ``low`` + 1, …, given the users that they share: [b, N]."""
    dense = shared.toarray()
    rows = np.arange(len(dense))
    product = norm[low : low + len(dense), None] * norm + np.float32(shrinkage)
    similarity = np.divide(dense, product, out=np.zeros_like(dense), where=product > 0)
    similarity[rows, low + rows] = 0.0
    if neighbours < similarity.shape[1]:
        nearest = np.argpartition(-similarity, neighbours - 1, axis=1)[:, :neighbours]
        kept = np.zeros_like(similarity)
        np.put_along_axis(kept, nearest, np.take_along_axis(similarity, nearest, axis=1), axis=1)
        similarity = kept
    return sparse.csr_matrix(similarity)


ITEM_KNN = Method(
    "item_knn",
    ItemKNN,
    tuple(
        {"neighbours": neighbours, "shrinkage": shrinkage}
        for neighbours, shrinkage in product((20, 50, 100, 200, 500), (0.0, 10.0, 100.0))
    ),
)
