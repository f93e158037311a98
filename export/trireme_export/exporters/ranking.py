"""Exports ranking: the ranker as an ONNX graph in which the item half of its first layer is a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trireme_export.checkpoint import Checkpoint
from trireme_export.exporters.native import ranker_tables
from trireme_export.exporters.onnx_graph import Parity, export_onnx
from trireme_export.exporters.quantisation import choose_precision
from trireme_export.exporters.samples import random_users, real_users
from trireme_runtime.schema import STAGES
from trireme_runtime.stages.feature_transform import FeatureTransform
from trireme_runtime.stages.ranking import Ranking
from trireme_runtime.stages.retrieval import Retrieval
from trireme_runtime.stages.stage import stage_inputs
from trireme_runtime.stages.user_tower import UserTower

__all__ = ["export"]


def export(
    checkpoint: Checkpoint,
    features: FeatureTransform,
    tower: UserTower,
    search: Retrieval,
    folder: Path,
    precision: str,
) -> tuple[Ranking, Parity, dict[str, Any]]:
    """Returns the stage, its parity with PyTorch in float32, and how its precision was chosen.

    The candidates to compare on are those that retrieval finds.
    """
    inputs = []
    for tensors in (real_users(features), random_users(features, np.random.default_rng(0))):
        for stage in (tower, search):
            tensors.update(stage(**stage_inputs(stage.name, tensors))._asdict())
        inputs.append(stage_inputs("ranking", tensors))
    output = STAGES["ranking"].outputs[0].name
    module = checkpoint.models.ranker.precompute()
    width = checkpoint.config.serving.candidates
    model, parity = export_onnx(module, "ranking", output, inputs, folder, width=width, padding="candidate_index")
    config = checkpoint.config
    compiled = ranker_tables(module) if precision != "int8" else None
    wanted = "float32" if compiled else precision
    model, record = choose_precision(model, inputs[0], wanted, config.gate.score_difference)
    return Ranking(model, compiled), parity, record
