"""Exports feature_transform: id maps, stored histories and features of the users."""

from __future__ import annotations

from trireme_export.checkpoint import Checkpoint
from trireme_runtime.stages.feature_transform import FeatureTransform

__all__ = ["export"]


def export(checkpoint: Checkpoint) -> FeatureTransform:
    """Returns the stage with the tables of the checkpoint."""
    tables = checkpoint.tables
    return FeatureTransform(tables.user_ids, tables.item_ids, tables.history, tables.category, tables.number)
