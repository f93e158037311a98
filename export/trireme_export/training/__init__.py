"""Training of the two models on arrays in index space."""

from __future__ import annotations

from trireme_export.training.options import RankerConfig, TowerConfig, TrainingConfig
from trireme_export.training.train import train

__all__ = ["RankerConfig", "TowerConfig", "TrainingConfig", "train"]
