"""Target gpu: the tower, the ranker and the funnel as graphs, for TensorRT or ONNX Runtime; Python models around them.

Nothing here needs a GPU, or a package for one: plans are built from the graphs where they will run.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from trireme_export.checkpoint import Checkpoint
from trireme_export.config import ServingConfig
from trireme_export.errors import ExportError
from trireme_export.evaluation.funnel import Answering
from trireme_export.exporters import export_stages
from trireme_export.exporters.gpu import prepare
from trireme_export.exporters.gpu.funnel import export_funnel_graph
from trireme_export.exporters.gpu.operators import LARGEST_K
from trireme_export.exporters.onnx_graph import save_graph
from trireme_export.repository import Contents, Graph
from trireme_export.targets.built import Built, Wanted
from trireme_runtime.onnx_model import OnnxModel
from trireme_runtime.stages.chain import Funnel
from trireme_runtime.stages.exclusion import Exclusion
from trireme_runtime.stages.feature_transform import FeatureTransform
from trireme_runtime.stages.ranking import Ranking
from trireme_runtime.stages.reranking import Reranking, Slate
from trireme_runtime.stages.stage import stage_inputs
from trireme_runtime.stages.user_tower import UserTower

__all__ = ["ENGINES", "FusedFunnel", "build"]

ENGINES = ("tensorrt", "onnxruntime")
#: Real users whose tensors are kept with the graphs.
SAMPLED = 64


def build(checkpoint: Checkpoint, wanted: Wanted) -> Built:
    """Returns the graphs of the plans that are wanted, and the stages around them.

    Raises:
        ExportError: see ``export_stages``, ``export_funnel_graph`` and ``prepare``; or the engine, ``serving.precision``,
            ``serving.candidates`` or ``serving.stream`` is none of target gpu.
    """
    serving = checkpoint.config.serving
    if serving.stream:
        raise ExportError("serving.stream is for target cpu; allowed with target gpu: false")
    half = _is_half(serving, wanted.engine)
    if wanted.plan != "ensemble":
        _check_candidates(serving.candidates, checkpoint.tables.item_ids.size)
    # A GPU searches all items, and so does the graph of the funnel: an approximate index would be tuned for nothing.
    index = "exact" if serving.index == "auto" or wanted.plan == "fused" else serving.index
    (features, tower, search, ranker, reranking), record = export_stages(checkpoint, wanted.folder, "float32", index)
    exclusion = Exclusion(search.seen, search.item_ids)
    models: dict[str, OnnxModel] = {}
    funnels: dict[str, Answering] = {}
    if wanted.plan != "fused":
        models["user_tower"] = _prepared(tower.model, "user_tower", wanted.folder, half)
        models["ranking"] = _prepared(ranker.model, "ranking", wanted.folder, half)
        stages = [features, UserTower(models["user_tower"]), search, Ranking(models["ranking"]), reranking]
        funnels["gate"] = Funnel(stages)
    if wanted.plan != "ensemble":
        graph, parity = export_funnel_graph(checkpoint, features, wanted.folder / "funnel")
        record["parity"]["funnel"] = asdict(parity)
        models["funnel"] = _prepared(graph, "funnel", wanted.folder, half)
        funnels["gate_fused" if funnels else "gate"] = FusedFunnel(features, exclusion, models["funnel"], reranking)
    gate = checkpoint.config.gate
    tolerances = {"score_difference": gate.score_difference, "index_recall": gate.index_recall}
    python = {stage.name: stage for stage in (features, exclusion, search, reranking)}
    tensors = _tensors(Funnel([features, tower, search, ranker, reranking]), exclusion, wanted.user_id[:SAMPLED])
    graphs = {name: Graph(model, tolerances) for name, model in models.items()}
    record |= {"engine": wanted.engine, "precision": {"chosen": "float16" if half else "float32", "variants": []}}
    return Built(Contents("gpu", python, tensors, graphs, wanted.engine), funnels, record)


def _is_half(serving: ServingConfig, engine: str) -> bool:
    """ONNX Runtime computes float16 on a CPU by way of float32, which takes longer than float32 itself."""
    if engine not in ENGINES:
        raise ExportError(f"the engine is {engine!r}; allowed for target gpu: {', '.join(ENGINES)}")
    precision = serving.precision
    if precision == "int8":
        raise ExportError("serving.precision is 'int8', which is for target cpu; allowed: auto, float32, float16")
    if serving.cuda_graphs and engine != "tensorrt":
        raise ExportError(f"serving.cuda_graphs is for the engine tensorrt; allowed with {engine}: false")
    return precision == "float16" or (precision == "auto" and engine == "tensorrt")


def _check_candidates(candidates: int, catalogue_size: int) -> None:
    """The graph of the funnel finds the candidates, or the whole of a smaller catalogue, by one TopK."""
    if min(candidates, catalogue_size) > LARGEST_K:
        raise ExportError(
            f"serving.candidates is {candidates}, which TensorRT cannot find in the graph of plan fused; allowed: up to "
            f"{LARGEST_K}, or --plan ensemble"
        )


def _prepared(model: OnnxModel, name: str, folder: Path, half: bool) -> OnnxModel:
    """Returns the graph as its engine reads it."""
    graph = onnx.load(str(model.file))
    prepare(graph, name, half=half)
    target = folder / "prepared" / name
    target.mkdir(parents=True)
    save_graph(graph, target)
    return OnnxModel(target)


def _tensors(funnel: Funnel, exclusion: Exclusion, user_id: np.ndarray) -> dict[str, np.ndarray]:
    """Returns all tensors of users with their stored history."""
    tensors: dict[str, Any] = funnel.staged(user_id=user_id)
    return tensors | exclusion(**stage_inputs("exclusion", tensors))._asdict()


class FusedFunnel:
    """The fused plan in this process, with its graph in ONNX Runtime.

    Args:
        features, exclusion, reranking: stages.
        graph: tower, search and ranker.
    """

    def __init__(
        self, features: FeatureTransform, exclusion: Exclusion, graph: OnnxModel, reranking: Reranking
    ) -> None:
        self._before = (features, exclusion)
        self._graph = graph
        self._reranking = reranking

    def __call__(
        self, user_id: np.ndarray, history: np.ndarray | None = None, context: np.ndarray | None = None
    ) -> Slate:
        """Args: user_id int64 [batch, 1]; history int64 [batch, L]; context int32 [batch, C], see ``FeatureTransform``."""
        tensors: dict[str, Any] = {"user_id": user_id, "history": history, "context": context}
        for stage in self._before:
            tensors.update(stage(**stage_inputs(stage.name, tensors))._asdict())
        tensors.update(self._graph.answers(tensors))
        return self._reranking(**stage_inputs("reranking", tensors))
