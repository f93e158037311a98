"""The funnel as one graph: the query, its product with all items, the best of them, and the ranker on those."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from trireme_export.checkpoint import Checkpoint
from trireme_export.exporters.gpu.inputs import declare_inputs
from trireme_export.exporters.gpu.parity import OUTPUTS, compare_funnel
from trireme_export.exporters.onnx_graph import Parity, save_graph, trace_onnx
from trireme_export.exporters.retrieval import checked_vectors
from trireme_export.exporters.samples import random_users, real_users
from trireme_export.exporters.seen import seen_items
from trireme_runtime.onnx_model import OnnxModel
from trireme_runtime.stages.exclusion import excluded_bits
from trireme_runtime.stages.feature_transform import FeatureTransform
from trireme_runtime.stages.stage import stage_inputs

__all__ = ["FunnelGraph", "export_funnel_graph"]

#: The score of excluded items: no product of float32 vectors is less.
LOWEST = float(np.finfo(np.float32).min)
LARGEST = float(np.finfo(np.float32).max)


def export_funnel_graph(checkpoint: Checkpoint, features: FeatureTransform, folder: Path) -> tuple[OnnxModel, Parity]:
    """Writes the float32 graph of the funnel to ``folder``; ``gpu.prepare`` makes it one for TensorRT.

    Args:
        checkpoint: its models may be own modules.
        features: gives the users on which the graph is compared with PyTorch.
        folder: where to write, made if missing.

    Returns:
        The graph ``(history_index int32 [B, L], user_category int32 [B, F], user_number float32 [B, D], excluded_items
        uint8 [B, ⌈N / 8⌉]) → (candidate_index int32 [B, C], retrieval_score float32 [B, C], ranking_score float32 [B, C])``,
        see ``FunnelGraph.forward``, and its parity with PyTorch.

    Raises:
        ExportError: a module does not have the form that a bundle needs, or the graph differs from PyTorch.
    """
    seen, inputs = seen_items(checkpoint.tables), []
    for tensors in (real_users(features), random_users(features, np.random.default_rng(0))):
        pairs = seen.pairs(tensors["user_row"], tensors["history_index"])
        given = stage_inputs("user_tower", tensors)
        inputs.append({**given, "excluded_items": excluded_bits(pairs, len(tensors["user_row"]), seen.catalogue_size)})
    models, candidates = checkpoint.models, checkpoint.config.serving.candidates
    vectors = torch.from_numpy(checked_vectors(checkpoint))
    module = FunnelGraph(models.two_tower.precompute(), vectors, models.ranker.precompute(), candidates).eval()
    folder.mkdir(parents=True, exist_ok=True)
    graph = trace_onnx(module, "funnel", dict.fromkeys(OUTPUTS, candidates), inputs[0], folder)
    declare_inputs(graph, inputs[0])
    save_graph(graph, folder)
    model = OnnxModel(folder)
    return model, compare_funnel(module, model, inputs, candidates)


class FunnelGraph(nn.Module):
    """user_tower, retrieval by exact search, and ranking.

    Args:
        tower: (history_index, user_category, user_number) → query float32 (B, Q).
        vectors: float32 (N, Q), the item vectors.
        ranker: (query, history_index, user_category, user_number, candidate_index, retrieval_score) → ranking_score.
        candidates: C.
    """

    vectors: Tensor
    clear: Tensor

    def __init__(self, tower: nn.Module, vectors: Tensor, ranker: nn.Module, candidates: int) -> None:
        super().__init__()
        self.tower, self.ranker, self.candidates = tower, ranker, candidates
        self.catalogue_size = len(vectors)
        self.register_buffer("vectors", vectors.t().contiguous())
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
        self.register_buffer("clear", torch.from_numpy(bits == 0))

    def forward(
        self, history_index: Tensor, user_category: Tensor, user_number: Tensor, excluded_items: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Finds and scores the candidates.

        Args:
            history_index: int32 (B, L), −1 where padding.
            user_category: int32 (B, F).
            user_number: float32 (B, D).
            excluded_items: uint8 (B, ⌈N / 8⌉); bit i of byte j says that item 8j + i must not be a candidate.

        Returns:
            ``candidate_index`` int32 (B, C), best retrieval score first, −1 where padding; ``retrieval_score`` float32 (B, C),
            0 where padding; ``ranking_score`` float32 (B, C), anything where padding. For a query that is no vector there are
            no candidates, and all retrieval scores are NaN.
        """
        query = self.tower(history_index, user_category, user_number)
        usable = (query.abs() <= LARGEST).float().amin(dim=1, keepdim=True) > 0  # NaN is not, infinity neither
        score = query @ self.vectors
        # A score that is NaN would come first; it is not above the lowest one.
        score = torch.where(self._allowed(excluded_items) & (score > LOWEST), score, LOWEST)
        candidate_index, retrieval_score = self._best(score, usable)
        ranking_score = self.ranker(query, history_index, user_category, user_number, candidate_index, retrieval_score)
        return candidate_index, retrieval_score, ranking_score

    def _allowed(self, excluded_items: Tensor) -> Tensor:
        """Returns the bits that are clear, bool (B, N). TensorRT casts UINT8 to floats only, and has no operators on bits."""
        return self.clear[excluded_items.float().int()].flatten(1)[:, : self.catalogue_size]

    def _best(self, score: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
        """Returns index int32 and score float32 (B, C) of the best items of ``score`` (B, N)."""
        best, index = torch.topk(score, min(self.candidates, self.catalogue_size), dim=1)
        index = index.int()
        if missing := max(0, self.candidates - self.catalogue_size):
            best = nn.functional.pad(best, (0, missing), value=LOWEST)
            index = nn.functional.pad(index, (0, missing))
        found = (best > LOWEST) & usable
        nothing = torch.where(usable, 0.0, float("nan"))
        return torch.where(found, index, torch.full((), -1, dtype=torch.int32)), torch.where(found, best, nothing)
