"""One exporter per stage: from a checkpoint to the stage object that serving loads."""

from __future__ import annotations

from pathlib import Path

from trireme_export.checkpoint import Checkpoint
from trireme_export.exporters import feature_transform, ranking, reranking, retrieval, user_tower
from trireme_export.exporters.onnx_graph import Parity
from trireme_stages.funnel import Funnel
from trireme_stages.schema import Dims

__all__ = ["bundle_dims", "export_funnel"]


def bundle_dims(checkpoint: Checkpoint) -> Dims:
    """The sizes that a bundle of ``checkpoint`` fixes."""
    tables, serving = checkpoint.tables, checkpoint.config.serving
    return Dims(
        history=tables.history.shape[1],
        candidates=serving.candidates,
        items=serving.list_length,
        query=checkpoint.models.shape.dim,
        category=tables.category.shape[1],
        number=tables.number.shape[1] + 1,
    )


def export_funnel(checkpoint: Checkpoint, folder: Path) -> tuple[Funnel, dict[str, Parity]]:
    """The five stages, with ONNX files under ``folder``, and how far each graph is from PyTorch.

    Raises:
        ExportError: a graph cannot be exported, or differs from PyTorch by more than is allowed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    features = feature_transform.export(checkpoint)
    tower, tower_parity = user_tower.export(checkpoint, features, folder / "user_tower.onnx")
    search = retrieval.export(checkpoint)
    ranker, ranker_parity = ranking.export(checkpoint, features, tower, search, folder / "ranking.onnx")
    funnel = Funnel([features, tower, search, ranker, reranking.export(checkpoint)])
    return funnel, {"user_tower": tower_parity, "ranking": ranker_parity}
