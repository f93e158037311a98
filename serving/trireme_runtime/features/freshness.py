"""How old the features of an answer are: what feature_transform tells reranking, and what becomes of it."""

from __future__ import annotations

import numpy as np

__all__ = ["LEAST_S", "SNAPSHOT", "STALE", "feature_age"]

#: Of the tensor `freshness`, in place of an age: the features are the bundle's; they are, because the store could not be asked.
SNAPSHOT, STALE = 0.0, -1.0
#: The least age of what a store holds: one of 0 is the bundle.
LEAST_S = 0.001


def feature_age(freshness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the age of the features, in seconds, and which answers are stale: float32 and bool, both [batch, 1] as
    ``freshness``."""
    return np.maximum(freshness, np.float32(SNAPSHOT)), freshness < SNAPSHOT
