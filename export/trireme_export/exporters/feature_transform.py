"""Exports feature_transform: id maps, stored histories and features of the users."""

from __future__ import annotations

import numpy as np

from trireme_export.checkpoint import Checkpoint
from trireme_runtime.stages.feature_transform import FeatureTransform

__all__ = ["export"]


def export(checkpoint: Checkpoint) -> FeatureTransform:
    """Returns the stage with the tables of the checkpoint."""
    tables = checkpoint.tables
    sizes = np.array([1 + len(values) for values in checkpoint.context.values()], np.int32)
    return FeatureTransform(tables.user_ids, tables.item_ids, tables.history, tables.category, tables.number, sizes)
