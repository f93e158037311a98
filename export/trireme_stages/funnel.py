"""The funnel: all five stages in one process. The fused plan serves it, offline evaluation calls it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from trireme_stages.feature_transform import FeatureTransform
from trireme_stages.ranking import Ranking
from trireme_stages.reranking import Reranking, Slate
from trireme_stages.retrieval import Retrieval
from trireme_stages.schema import ENTRY, STAGES
from trireme_stages.stage import Stage
from trireme_stages.user_tower import UserTower

__all__ = ["STAGE_TYPES", "Funnel"]

#: The classes of the stages, in the order of a request.
STAGE_TYPES: tuple[type[Any], ...] = (FeatureTransform, UserTower, Retrieval, Ranking, Reranking)


class Funnel:
    """Chains the stages by the names of their tensors, as the ensemble's config does.

    Args:
        stages: one object per entry of ``schema.STAGES``, in that order.
    """

    name: ClassVar[str] = ENTRY

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = tuple(stages)

    @staticmethod
    def invalid_rows(user_id: np.ndarray, history: np.ndarray | None = None) -> dict[int, str]:
        return FeatureTransform.invalid_rows(user_id, history)

    def __call__(self, user_id: np.ndarray, history: np.ndarray | None = None) -> Slate:
        """Args: user_id int64 [batch, 1]; history int64 [batch, L] or None for the stored one."""
        tensors: dict[str, Any] = {"user_id": user_id, "history": history}
        for stage in self.stages:
            inputs = {tensor.name: tensors[tensor.name] for tensor in STAGES[stage.name].inputs}
            tensors.update(stage(**inputs)._asdict())
        return Slate(tensors["item_id"], tensors["score"], tensors["rung"])

    def save(self, path: Path) -> None:
        for stage in self.stages:
            stage.save(path / stage.name)

    @classmethod
    def load(cls, path: Path) -> Funnel:
        return cls([stage.load(path / stage.name) for stage in STAGE_TYPES])
