"""The choice of the ranker's precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from trireme_export.errors import ExportError
from trireme_export.exporters import quantisation
from trireme_export.exporters.onnx_graph import export_onnx
from trireme_export.exporters.quantisation import Variant, choose_precision
from trireme_runtime.onnx_model import OnnxModel


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, candidate_index: Tensor, features: Tensor) -> Tensor:
        return self.layers(features).squeeze(2)  # an input that is not read is not in the graph


@pytest.fixture
def sample() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "candidate_index": rng.integers(-1, 9, (40, 20)).astype(np.int32),
        "features": rng.standard_normal((40, 20, 8)).astype(np.float32),
    }


@pytest.fixture
def model(sample: dict[str, np.ndarray], tmp_path: Path) -> OnnxModel:
    return export_onnx(Layers(), "ranking", "ranking_score", [sample], tmp_path, width=20)[0]


def test_int8_changes_scores_a_little_and_is_measured(model: OnnxModel, sample: dict[str, np.ndarray]) -> None:
    chosen, record = choose_precision(model, sample, "int8", 0.2)
    assert record["chosen"].startswith("int8")
    assert [variant["name"] for variant in record["variants"]] == ["float32", "int8-dynamic", "int8-static"]
    difference = {variant["name"]: variant["difference"] for variant in record["variants"]}
    assert difference["float32"] == 0
    assert 0 < difference[record["chosen"]] <= 0.2
    np.testing.assert_allclose(chosen(sample), model(sample), atol=0.5)


def test_int8_that_changes_too_much_is_refused_with_the_figures(
    model: OnnxModel, sample: dict[str, np.ndarray]
) -> None:
    with pytest.raises(
        ExportError, match=r"changes the ranker's scores by 0\.\d+, allowed by gate.score_difference: 1e-09"
    ):
        choose_precision(model, sample, "int8", 1e-9)


def test_float32_tries_nothing_else(model: OnnxModel, sample: dict[str, np.ndarray]) -> None:
    chosen, record = choose_precision(model, sample, "float32", 0.0)
    assert chosen is model
    assert [variant["name"] for variant in record["variants"]] == ["float32"]


@pytest.mark.parametrize(
    ("dynamic", "static", "expected"),
    [
        ((0.01, 95.0), (0.01, 93.0), "float32"),  # not clearly faster
        ((0.01, 60.0), (0.01, 50.0), "int8-static"),
        ((0.01, 60.0), (0.9, 50.0), "int8-dynamic"),  # the faster one changes the scores
    ],
)
def test_auto_takes_what_is_clearly_faster_and_within_the_tolerance(
    model: OnnxModel,
    sample: dict[str, np.ndarray],
    monkeypatch: pytest.MonkeyPatch,
    dynamic: tuple[float, float],
    static: tuple[float, float],
    expected: str,
) -> None:
    variants = [
        Variant("float32", 0.0, 100.0),
        Variant("int8-dynamic", *dynamic),
        Variant("int8-static", *static),
    ]
    monkeypatch.setattr(quantisation, "_measure", lambda models, sample: variants)
    assert choose_precision(model, sample, "auto", 0.03)[1]["chosen"] == expected
