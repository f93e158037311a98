"""Inputs on which an exported graph is compared with PyTorch: real users, and random ones with histories of every length."""

from __future__ import annotations

import numpy as np

from trireme_runtime.stages.feature_transform import FeatureTransform

__all__ = ["random_users", "real_users"]

SAMPLE = 64


def real_users(features: FeatureTransform) -> dict[str, np.ndarray]:
    """Returns the outputs of feature_transform for known users, spread evenly, and an unknown one."""
    ids = features.user_ids[np.linspace(0, features.user_ids.size - 1, SAMPLE - 1).astype(int)]
    return features(np.append(ids, -1)[:, None])._asdict()


def random_users(features: FeatureTransform, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Returns the same for unknown users with random histories of every length from 0 to L, and random contexts."""
    length = features.history.shape[1]
    history = rng.choice(features.item_ids, size=(SAMPLE, length))
    for row, size in enumerate(np.linspace(0, length, SAMPLE).astype(int)):
        history[row, : length - size] = -1
    sizes = features.context_sizes
    context = rng.integers(0, sizes, (SAMPLE, sizes.size), np.int32) if sizes.size else None
    return features(np.full((SAMPLE, 1), -1), history, context)._asdict()
