"""A linear autoencoder in closed form: Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019."""

from __future__ import annotations

import numpy as np
from scipy import linalg, sparse

from trireme_export.evaluation.baselines.method import Method
from trireme_export.evaluation.baselines.positives import Positives

__all__ = ["EASE", "Ease"]

#: Items whose square matrices still fit: one of float64 and one of float32 take 4.8 GB.
MOST_ITEMS = 20_000


class Ease:
    """The weights between all pairs of items, float32 [N, N] with a diagonal of 0.

    With P the inverse of XᵀX + regularisation · I, the weight from item i to item j is −P[i, j] / P[j, j].
    """

    def __init__(self, positives: Positives, regularisation: float) -> None:
        gram = np.empty((positives.catalogue_size, positives.catalogue_size))
        for items, shared in positives.shared():
            gram[items] = shared
        gram[np.diag_indices_from(gram)] += regularisation
        weight = _inverse(gram)
        weight /= -weight.diagonal()
        np.fill_diagonal(weight, 0.0)
        self._weight = weight.astype(np.float32)

    def score(self, histories: sparse.csr_matrix) -> np.ndarray:
        scores: np.ndarray = histories @ self._weight
        return scores


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """Returns the inverse of a positive definite matrix (float64 [N, N]), in whose place it is computed."""
    factor, _ = linalg.lapack.dpotrf(matrix.T, lower=True, overwrite_a=True)
    inverse, _ = linalg.lapack.dpotri(factor, lower=True, overwrite_c=True)
    for column in range(len(inverse)):  # LAPACK leaves what is above the diagonal as it was
        inverse[:column, column] = inverse[column, :column]
    return inverse


def _refusal(positives: Positives) -> str | None:
    size = positives.catalogue_size
    return f"the catalogue has {size:,} items; allowed: up to {MOST_ITEMS:,}" if size > MOST_ITEMS else None


EASE = Method(
    "ease",
    Ease,
    tuple({"regularisation": value} for value in (50.0, 200.0, 500.0, 1000.0, 2000.0)),
    _refusal,
)
