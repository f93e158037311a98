"""ranking: a score for every candidate, from the user, the item and what is between them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from trireme_runtime.artifacts import load_stage, save_stage
from trireme_runtime.native.tables import Tables, load_tables, save_tables
from trireme_runtime.onnx_model import OnnxModel

__all__ = ["Ranking", "RankingScores"]


class RankingScores(NamedTuple):
    """ranking_score float32 [batch, C]; undefined where the candidate is padding."""

    ranking_score: np.ndarray


class Ranking:
    """The ranker, with the tables of the items.

    Args:
        model: an ONNX graph.
        compiled: the weights of the shipped form, for a chain of stages, see ``native``.
    """

    name: ClassVar[str] = "ranking"

    def __init__(self, model: OnnxModel, compiled: Tables | None = None) -> None:
        self.model = model
        self.compiled = compiled

    def tables(self) -> Tables | None:
        """What the compiled form reads, if there is one."""
        return self.compiled

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
        if self.compiled is not None:
            save_tables(path, self.name, self.compiled)

    @classmethod
    def load(cls, path: Path) -> Ranking:
        load_stage(path, cls.name)
        compiled = load_tables(path, cls.name)
        return cls(OnnxModel(path, lazily=compiled is not None), compiled)
