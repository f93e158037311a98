"""The two models, as PyTorch modules that export to ONNX. They know neither files of data nor servers."""

from __future__ import annotations

from trireme_export.models.ranker import Ranker, ServingRanker
from trireme_export.models.shape import ModelShape
from trireme_export.models.trained import TrainedModels, load_models, save_models
from trireme_export.models.two_tower import ServingTower, TwoTower

__all__ = [
    "ModelShape",
    "Ranker",
    "ServingRanker",
    "ServingTower",
    "TrainedModels",
    "TwoTower",
    "load_models",
    "save_models",
]
