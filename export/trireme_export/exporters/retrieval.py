"""Exports retrieval: an index over the item vectors, and the seen items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from trireme_export.checkpoint import Checkpoint
from trireme_export.errors import ExportError
from trireme_export.exporters.index_tuning import IndexTarget, tune_index
from trireme_export.exporters.seen import seen_items
from trireme_runtime.stages.retrieval import Retrieval

__all__ = ["checked_vectors", "export"]


def export(checkpoint: Checkpoint, queries: np.ndarray, folder: Path, kind: str) -> tuple[Retrieval, dict[str, Any]]:
    """Returns the stage, and how its index was chosen for the ``queries`` (float32 [n, Q]) of real users.

    Args:
        kind: auto, exact or ivf.

    Raises:
        ExportError: the item vectors do not have the form that a bundle needs, or see ``tune_index``.
    """
    config = checkpoint.config
    target = IndexTarget(kind, config.serving.candidates, config.gate.index_recall)
    index, record = tune_index(checked_vectors(checkpoint), queries, target, folder)
    tables = checkpoint.tables
    return Retrieval(index, seen_items(tables), config.serving.candidates, tables.item_ids), record


def checked_vectors(checkpoint: Checkpoint) -> np.ndarray:
    """Returns the item vectors, float32 [N, Q].

    Raises:
        ExportError: they do not have the form that a bundle needs.
    """
    with torch.inference_mode():
        vectors: np.ndarray = checkpoint.models.two_tower.item_vectors().numpy()
    needed = checkpoint.tables.item_ids.size, checkpoint.models.shape.dim
    if vectors.dtype != np.float32 or vectors.shape != needed:
        raise ExportError(f"retrieval: item_vectors() is {vectors.dtype} {vectors.shape}, needed: float32 {needed}")
    if bad := np.count_nonzero(~np.isfinite(vectors)):
        raise ExportError(f"retrieval: {bad} of {vectors.size} values of item_vectors() are not finite")
    return vectors
