"""Stages one after another in one process: a step of the ensemble, or the whole funnel."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from trireme_runtime.schema import CHAINS, FUSED, MODELS, STAGES
from trireme_runtime.stages.feature_transform import FeatureTransform
from trireme_runtime.stages.ranking import Ranking
from trireme_runtime.stages.reranking import Reranking, Slate
from trireme_runtime.stages.retrieval import Retrieval
from trireme_runtime.stages.stage import Stage
from trireme_runtime.stages.user_tower import UserTower

__all__ = ["STAGE_TYPES", "Chain", "Funnel", "load_stages"]

#: The classes of the stages, in the order of a request.
STAGE_TYPES: tuple[type[Any], ...] = (FeatureTransform, UserTower, Retrieval, Ranking, Reranking)


def load_stages(path: Path, model: str) -> list[Stage]:
    """The stages of ``model`` (a key of ``schema.CHAINS``) from the folders under ``path``. Raises: ArtifactError."""
    types = {kind.name: kind for kind in STAGE_TYPES}
    return [types[name].load(path / name) for name in CHAINS[model]]


class Chain:
    """Hands tensors from stage to stage by their names, as the ensemble's config does.

    Args:
        model: a key of ``schema.CHAINS``.
        stages: the stages named there, in that order.
    """

    def __init__(self, model: str, stages: Sequence[Stage]) -> None:
        self.signature = MODELS[model]
        self._answered = self.signature.answered
        self.stages = tuple(stages)

    @staticmethod
    def invalid_rows(**inputs: np.ndarray) -> dict[int, str]:
        """What is wrong with a request, by row: only what comes from outside can be wrong."""
        return FeatureTransform.invalid_rows(**inputs) if "user_id" in inputs else {}

    def run(self, spent: list[int] | None = None, **inputs: np.ndarray | None) -> tuple[np.ndarray, ...]:
        """What the signature answers always, in its order, for its inputs. ``spent`` is told the ns that each stage took."""
        tensors: dict[str, Any] = dict(inputs)
        for stage in self.stages:
            start = time.perf_counter_ns()
            outputs = stage(**{tensor.name: tensors.get(tensor.name) for tensor in STAGES[stage.name].inputs})
            tensors.update(outputs._asdict())
            if spent is not None:
                spent.append(time.perf_counter_ns() - start)
        return tuple(tensors[tensor.name] for tensor in self._answered)


class Funnel(Chain):
    """All five stages. The fused plan serves it, offline evaluation calls it."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        super().__init__(FUSED, stages)

    def __call__(self, user_id: np.ndarray, history: np.ndarray | None = None) -> Slate:
        """Args: user_id int64 [batch, 1]; history int64 [batch, L] or None for the stored one."""
        return Slate(*self.run(user_id=user_id, history=history))

    def save(self, path: Path) -> None:
        for stage in self.stages:
            stage.save(path / stage.name)

    @classmethod
    def load(cls, path: Path) -> Funnel:
        return cls(load_stages(path, FUSED))
