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


class ItemKNN:
    """The similarities of every item with its ``neighbours`` nearest: the score of an item is their sum over the history.

    Two items that n users have both taken, and n_i and n_j users each, are similar by n / (√(n_i n_j) + shrinkage).
    """

    def __init__(self, positives: Positives, neighbours: int, shrinkage: float) -> None:
        norm = np.sqrt(np.asarray(positives.matrix.sum(axis=0), dtype=np.float32).ravel())
        parts = [_nearest(shared, norm, items, neighbours, shrinkage) for items, shared in positives.shared()]
        self._similarity = sparse.vstack(parts, format="csr").T.tocsr()

    def score(self, histories: sparse.csr_matrix) -> np.ndarray:
        scores: np.ndarray = (histories @ self._similarity).toarray()
        return scores


def _nearest(
    shared: np.ndarray, norm: np.ndarray, items: slice, neighbours: int, shrinkage: float
) -> sparse.csr_matrix:
    """Keeps the largest similarities of some items, given the users whom they share with all items: [b, N]."""
    product = norm[items, None] * norm + np.float32(shrinkage)
    similarity = np.divide(shared, product, out=np.zeros_like(shared), where=product > 0)
    rows = np.arange(len(shared))
    similarity[rows, items.start + rows] = 0.0
    if neighbours < similarity.shape[1]:
        further = np.argpartition(-similarity, neighbours, axis=1)[:, neighbours:]
        np.put_along_axis(similarity, further, 0.0, axis=1)
    return sparse.csr_matrix(similarity)


ITEM_KNN = Method(
    "item_knn",
    ItemKNN,
    tuple(
        {"neighbours": neighbours, "shrinkage": shrinkage}
        for neighbours, shrinkage in product((20, 50, 100, 200, 500), (0.0, 10.0, 100.0))
    ),
)
