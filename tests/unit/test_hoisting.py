"""The graph transformation, on a ranker that was not written for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from trireme_export.exporters.onnx_graph import export_onnx
from trireme_runtime.onnx_model import MODEL

ITEMS, CANDIDATES, DIM, HIDDEN = 40, 12, 6, 16


class PlainRanker(nn.Module):
    """User, item and their interaction, concatenated; nothing is precomputed."""

    features: Tensor
    brand: Tensor

    def __init__(self, linear_sees: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.register_buffer("features", torch.randn(ITEMS, 10))
        self.register_buffer("brand", torch.randint(0, 5, (ITEMS,)))
        self.brands = nn.Embedding(5, 3)
        self.sees = linear_sees
        width = {"all": DIM + 10 + 3 + 1, "items": 10 + 1, "nothing": 1 + 1}[linear_sees]
        self.layers = nn.Sequential(nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1))

    def forward(self, query: Tensor, candidate_index: Tensor, retrieval_score: Tensor) -> Tensor:
        index = candidate_index.long()
        score = retrieval_score[:, :, None]
        user = query[:, None].expand(-1, CANDIDATES, -1)
        parts = {
            "all": [user, self.features[index], self.brands(self.brand[index]), score],
            "items": [self.features[index], score],
            "nothing": [score, score * 2],
        }[self.sees]
        return self.layers(torch.cat(parts, dim=-1)).squeeze(2)


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "query": rng.standard_normal((8, DIM)).astype(np.float32),
        "candidate_index": rng.integers(0, ITEMS, (8, CANDIDATES)).astype(np.int32),
        "retrieval_score": rng.standard_normal((8, CANDIDATES)).astype(np.float32),
    }


def widest_product(folder: Path) -> int:
    """Columns that the first layer still multiplies per candidate."""
    graph = onnx.load(str(folder / MODEL)).graph
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    return max(
        shapes[node.input[1]][0]
        for node in graph.node
        if node.op_type == "MatMul" and shapes.get(node.input[1], [0, 0])[1] == HIDDEN and "part" not in node.output[0]
    )


def given(ranker: PlainRanker) -> dict[str, np.ndarray]:
    names = {"all": ("query", "candidate_index", "retrieval_score")}
    return {name: inputs()[name] for name in names.get(ranker.sees, names["all"])}


@pytest.mark.parametrize(("sees", "left"), [("all", 1), ("items", 1), ("nothing", 2)])
def test_what_depends_on_item_or_user_alone_leaves_the_product(sees: str, left: int, tmp_path: Path) -> None:
    ranker = PlainRanker(sees)
    # export_onnx compares with PyTorch and raises where the transformation changed the function.
    _, parity = export_onnx(ranker, "ranking", "ranking_score", [given(ranker)], tmp_path, width=CANDIDATES)
    assert parity.relative < 1e-5
    assert widest_product(tmp_path) == left


def test_the_table_holds_the_product_and_the_raw_features_are_gone(tmp_path: Path) -> None:
    ranker = PlainRanker("all")
    export_onnx(ranker, "ranking", "ranking_score", [given(ranker)], tmp_path, width=CANDIDATES)
    graph = onnx.load(str(tmp_path / MODEL)).graph
    shapes = sorted(list(tensor.dims) for tensor in graph.initializer if len(tensor.dims) == 2)
    assert shapes.count([ITEMS, HIDDEN]) == 2  # features and brands, each times its part of the weights
    assert [ITEMS, 10] not in shapes
