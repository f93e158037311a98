"""A ranker of one's own, exported as docs/your-models.md describes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.e2e.conftest import Served
from tests.support.own_ranker import Backwards
from trireme_export.errors import ExportError
from trireme_export.pipeline import export_bundle
from trireme_runtime.stages.chain import Funnel


class Restless(Backwards):
    """Answers differently each time, so that ONNX cannot compute what PyTorch did."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return super().forward(*inputs) + torch.rand(1)


def export_with(served: Served, ranker: nn.Module, out: Path) -> Funnel:
    checkpoint = replace(served.checkpoint, models=replace(served.checkpoint.models, ranker=ranker))
    manifest = export_bundle(checkpoint, out, "fused", waive=["popularity"])  # the worst candidate comes first
    return Funnel.load(out / "recommend" / str(manifest.version))


def test_an_own_ranker_decides_the_order(served: Served, tmp_path: Path) -> None:
    funnel = export_with(served, Backwards(), tmp_path / "repository")
    assert funnel.compiled == ("feature_transform", "user_tower", "retrieval", "reranking")
    slate = funnel(served.dataset.test.user_id[:20, None])
    search, reranked = funnel.stages[2], slate.score
    assert (np.diff(reranked, axis=1) <= 0).all()
    features = funnel.stages[0](served.dataset.test.user_id[:20, None])
    query = funnel.stages[1](features.history_index, features.user_category, features.user_number).query
    found = search(query, features.user_row, features.history_index)
    np.testing.assert_allclose(reranked[:, 0], -found.retrieval_score.min(axis=1), rtol=1e-4)


def test_a_graph_that_differs_from_pytorch_is_refused(served: Served, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="ranking: ONNX differs from PyTorch"):
        export_with(served, Restless(), tmp_path / "repository")
    assert not (tmp_path / "repository").exists()


class Short(nn.Module):
    """A tower whose item vectors are shorter than its queries."""

    def __init__(self, tower: nn.Module) -> None:
        super().__init__()
        self.tower = tower

    def item_vectors(self) -> Tensor:
        return self.tower.item_vectors()[:, 1:]

    def precompute(self) -> nn.Module:
        return self.tower.precompute()


def test_item_vectors_of_another_length_are_refused(served: Served, tmp_path: Path) -> None:
    models = replace(served.checkpoint.models, two_tower=Short(served.checkpoint.models.two_tower))
    with pytest.raises(ExportError, match=r"item_vectors\(\) is float32 \(\d+, 31\), needed: float32 \(\d+, 32\)"):
        export_bundle(replace(served.checkpoint, models=models), tmp_path / "repository", "fused")
