"""user_tower: from history and features of the user to the query vector."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np

from trireme_runtime.artifacts import load_stage, save_stage
from trireme_runtime.native.tables import Tables, load_tables, save_tables
from trireme_runtime.onnx_model import OnnxModel

__all__ = ["Query", "UserTower"]


class Query(NamedTuple):
    """query float32 [batch, Q]; its inner product with an item vector is the retrieval score."""

    query: np.ndarray


class UserTower:
    """The user side of the two-tower.

    Args:
        model: an ONNX graph.
        compiled: the weights of the shipped form, for a chain of stages, see ``native``.
    """

    name: ClassVar[str] = "user_tower"

    def __init__(self, model: OnnxModel, compiled: Tables | None = None) -> None:
        self.model = model
        self.compiled = compiled

    def tables(self) -> Tables | None:
        """What the compiled form reads, if there is one."""
        return self.compiled

    def __call__(self, history_index: np.ndarray, user_category: np.ndarray, user_number: np.ndarray) -> Query:
        """Args: history_index int32 [batch, L]; user_category int32 [batch, F];
        user_number float32 [batch, D]."""
        return Query(
            self.model({"history_index": history_index, "user_category": user_category, "user_number": user_number})
        )

    def save(self, path: Path) -> None:
        save_stage(path, self.name, {})
        self.model.save(path)
        if self.compiled is not None:
            save_tables(path, self.name, self.compiled)

    @classmethod
    def load(cls, path: Path) -> UserTower:
        load_stage(path, cls.name)
        compiled = load_tables(path, cls.name)
        return cls(OnnxModel(path, lazily=compiled is not None), compiled)
