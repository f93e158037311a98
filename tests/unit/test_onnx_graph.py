"""The comparison of an exported graph with PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trireme_export.errors import ExportError
from trireme_export.exporters.onnx_graph import export_onnx

SAMPLE = {
    "candidate_index": np.array([[3, 1, -1], [2, -1, -1]], dtype=np.int32),
    "retrieval_score": np.array([[3, 1, 0], [2, 0, 0]], dtype=np.float32),
}


class Broken(nn.Module):
    """Answers ``value`` at padding, or everywhere else, and the retrieval score in the other places."""

    def __init__(self, value: float, padding: bool) -> None:
        super().__init__()
        self.value, self.padding = value, padding

    def forward(self, candidate_index: Tensor, retrieval_score: Tensor) -> Tensor:
        broken = candidate_index < 0 if self.padding else candidate_index >= 0
        return torch.where(broken, torch.full_like(retrieval_score, self.value), retrieval_score)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(ExportError, match=rf"ranking: 3 of 3 outputs of PyTorch are not finite \(such as {value}\)"):
        export_onnx(
            Broken(value, padding=False), "ranking", "score", [SAMPLE], tmp_path, width=3, padding="candidate_index"
        )


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_scores_at_padding_may_be_anything(tmp_path: Path, value: float) -> None:
    module = Broken(value, padding=True)
    _, parity = export_onnx(module, "ranking", "score", [SAMPLE], tmp_path, width=3, padding="candidate_index")
    assert parity.relative == 0


class Answers(nn.Module):
    """Answers what ``make`` makes of the retrieval score."""

    def __init__(self, make: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.make = make

    def forward(self, candidate_index: Tensor, retrieval_score: Tensor) -> Any:
        return self.make(retrieval_score)


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (lambda score: score[:, :, None], r"float32 \(2, 3, 1\)"),
        (lambda score: score[:, :1], r"float32 \(2, 1\)"),
        (lambda score: score.double(), r"float64 \(2, 3\)"),
        (lambda score: (score, score), "tuple"),
    ],
)
def test_an_output_of_another_form_is_named(tmp_path: Path, make: Callable[[Tensor], Any], found: str) -> None:
    needed = r"needed: a tensor float32 \(2, 3\)"
    with pytest.raises(ExportError, match=f"ranking: for 2 users, the module returns {found}, {needed}"):
        export_onnx(Answers(make), "ranking", "score", [SAMPLE], tmp_path, width=3)


def test_the_columns_of_an_output_are_fixed(tmp_path: Path) -> None:
    """A trace leaves those open that are computed, and a backend of Triton refuses a model whose config fixes them."""
    module = Answers(lambda score: torch.zeros_like(score) + torch.arange(score.shape[1]))
    model, _ = export_onnx(module, "ranking", "score", [SAMPLE], tmp_path, width=3)
    assert [(output.name, output.shape) for output in model.signature.outputs] == [("score", (-1, 3))]


def test_what_pytorch_cannot_export_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(
        ExportError, match=r"ranking: PyTorch cannot export the module to ONNX: .*'aten::trunc'"
    ) as caught:
        export_onnx(Answers(torch.trunc), "ranking", "score", [SAMPLE], tmp_path, width=3)
    assert "\n" not in str(caught.value)
