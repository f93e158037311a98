"""Training of the two models on arrays in index space."""

from .config import RankerConfig, TowerConfig, TrainingConfig
from .data import ListFeature, TrainingData
from .train import train

__all__ = ["ListFeature", "RankerConfig", "TowerConfig", "TrainingConfig", "TrainingData", "train"]
