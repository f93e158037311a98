"""ranking: a score for every candidate, from the user, the item and what is between them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from trireme_runtime.artifacts import load_stage, save_stage
from trireme_runtime.onnx_model import OnnxModel

__all__ = ["Ranking", "RankingScores"]


class RankingScores(NamedTuple):
    """ranking_score float32 [batch, C]; undefined where the candidate is padding."""

    ranking_score: np.ndarray


class Ranking:
    """The ranker, an ONNX graph that holds the tables of the items."""

    name: ClassVar[str] = "ranking"

    def __init__(self, model: OnnxModel) -> None:
        self.model = model

    def __call__(
        self,
        query: np.ndarray,
        history_index: np.ndarray,
        user_category: np.ndarray,
        user_number: np.ndarray,
        candidate_index: np.ndarray,
        retrieval_score: np.ndarray,
    ) -> RankingScores:
        """Args: query float32 [batch, Q]; history_index int32 [batch, L]; user_category int32 [batch, F];
        user_number float32 [batch, D]; candidate_index int32 and retrieval_score float32 [batch, C]."""
        return RankingScores(
            self.model(
                {
                    "query": query,
                    "history_index": history_index,
                    "user_category": user_category,
                    "user_number": user_number,
                    "candidate_index": candidate_index,
                    "retrieval_score": retrieval_score,
                }
            )
        )

    def save(self, path: Path) -> None:
        save_stage(path, self.name, {})
        self.model.save(path)

    @classmethod
    def load(cls, path: Path) -> Ranking:
        load_stage(path, cls.name)
        return cls(OnnxModel(path))
