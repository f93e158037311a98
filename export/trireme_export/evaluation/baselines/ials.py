"""Matrix factorisation of implicit feedback by alternating least squares, as the package ``implicit`` does it.

Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse
from threadpoolctl import threadpool_limits

from trireme_export.evaluation.baselines.method import Method
from trireme_export.evaluation.baselines.positives import Positives

__all__ = ["IALS", "ImplicitALS"]

FACTORS = 64
ITERATIONS = 15


class ImplicitALS:
    """Vectors of items; those of users are solved for from their history, whether they were in training or not."""

    def __init__(self, positives: Positives, alpha: float, regularisation: float) -> None:
        # The solver runs threads of its own, each of which would start those of BLAS.
        with threadpool_limits(1, user_api="blas"):
            self._model = AlternatingLeastSquares(FACTORS, regularisation, alpha, iterations=ITERATIONS, random_state=0)
            self._model.fit(positives.matrix, show_progress=False)

    def score(self, histories: sparse.csr_matrix) -> np.ndarray:
        with threadpool_limits(1, user_api="blas"):
            user = self._model.recalculate_user(np.arange(histories.shape[0]), histories)
        scores: np.ndarray = user @ self._model.item_factors.T
        return scores


IALS = Method(
    "ials",
    ImplicitALS,
    tuple(
        {"alpha": alpha, "regularisation": regularisation}
        for alpha, regularisation in product((1.0, 3.0, 10.0, 30.0), (1.0, 10.0, 30.0, 100.0))
    ),
)
