"""Exports user_tower: the user side of the two-tower as an ONNX graph that holds the table of history vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trireme_export.checkpoint import Checkpoint
from trireme_export.exporters.native import tower_tables
from trireme_export.exporters.onnx_graph import Parity, export_onnx
from trireme_export.exporters.samples import random_users, real_users
from trireme_runtime.stages.feature_transform import FeatureTransform
from trireme_runtime.stages.stage import stage_inputs
from trireme_runtime.stages.user_tower import UserTower

__all__ = ["export"]


def export(checkpoint: Checkpoint, features: FeatureTransform, folder: Path) -> tuple[UserTower, Parity]:
    """Returns the stage and its parity with PyTorch."""
    inputs = [
        stage_inputs("user_tower", tensors)
        for tensors in (real_users(features), random_users(features, np.random.default_rng(0)))
    ]
    module, width = checkpoint.models.two_tower.precompute(), checkpoint.models.shape.dim
    model, parity = export_onnx(module, "user_tower", "query", inputs, folder, width=width)
    return UserTower(model, tower_tables(module)), parity
