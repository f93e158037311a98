"""The two models, as PyTorch modules that export to ONNX. They know neither data files nor servers."""

from .checkpoint import TrainedModels, load_models, save_models
from .ranker import Ranker, ServingRanker
from .shape import ModelShape
from .two_tower import ServingTower, TwoTower

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
