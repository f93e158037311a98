"""One exporter per stage: from a checkpoint to the stage object that serving loads."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trireme_export.checkpoint import Checkpoint
from trireme_export.exporters import feature_transform, ranking, reranking, retrieval, user_tower
from trireme_export.exporters.compiling import choose_compiled
from trireme_export.exporters.index_tuning import QUERIES
from trireme_runtime.schema import Dims
from trireme_runtime.stages.chain import Funnel
from trireme_runtime.stages.feature_transform import FeatureTransform
from trireme_runtime.stages.stage import stage_inputs
from trireme_runtime.stages.user_tower import UserTower

__all__ = ["bundle_dims", "export_funnel", "export_stages"]


def bundle_dims(checkpoint: Checkpoint) -> Dims:
    """Returns the sizes that a bundle of ``checkpoint`` fixes."""
    tables, serving = checkpoint.tables, checkpoint.config.serving
    return Dims(
        history=tables.history.shape[1],
        candidates=serving.candidates,
        list_length=serving.list_length,
        query=checkpoint.models.shape.dim,
        category=tables.category.shape[1],
        number=tables.number.shape[1] + 1,
        catalogue=int(tables.item_ids.size),
        context=len(checkpoint.context),
    )


def export_funnel(checkpoint: Checkpoint, folder: Path) -> tuple[Funnel, dict[str, Any]]:
    """Builds the five stages, with ONNX files under ``folder``, and records what was chosen for them and why.

    The record is that of ``export_stages`` with ``"compiled"``: see compiling.

    Raises:
        ExportError: see ``export_stages``; or the compiled stages differ from the others.
    """
    serving = checkpoint.config.serving
    stages, record = export_stages(checkpoint, folder, serving.precision, serving.index)
    funnel, compiled = choose_compiled(Funnel(stages), _known_users(stages[0]))
    return funnel, {**record, "compiled": compiled}


def export_stages(checkpoint: Checkpoint, folder: Path, precision: str, index: str) -> tuple[list[Any], dict[str, Any]]:
    """Builds the five stages, with ONNX files under ``folder``; the ranker in ``precision``: auto, float32 or int8; the search by
    ``index``: auto, exact or ivf.

    The record is ``{"parity": {stage: how far its graph is from PyTorch}, "index": see index_tuning, "precision": see
    quantisation}``.

    Raises:
        ExportError: a graph cannot be exported or differs from PyTorch by more than is allowed, or the index does not reach its
            recall.
    """
    features = feature_transform.export(checkpoint)
    tower, tower_parity = user_tower.export(checkpoint, features, folder / "user_tower")
    search, tuned = retrieval.export(checkpoint, _queries(features, tower), folder / "index", index)
    ranker, ranker_parity, chosen = ranking.export(checkpoint, features, tower, search, folder / "ranking", precision)
    parity = {"user_tower": asdict(tower_parity), "ranking": asdict(ranker_parity)}
    stages = [features, tower, search, ranker, reranking.export(checkpoint)]
    return stages, {"parity": parity, "index": tuned, "precision": chosen}


def _queries(features: FeatureTransform, tower: UserTower) -> np.ndarray:
    """Returns the queries of users with a history: float32 [n, Q]."""
    users = _known_users(features)[:QUERIES]
    return tower(**stage_inputs("user_tower", features(users)._asdict())).query


def _known_users(features: FeatureTransform) -> np.ndarray:
    """Returns the ids of all users with a history, in an order drawn with a fixed seed; an unknown one if there is none."""
    rows = np.random.default_rng(1).permutation(np.flatnonzero(features.history[:-1, -1] >= 0))
    return features.user_ids[rows][:, None] if rows.size else np.array([[-1]])
